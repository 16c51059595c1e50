"""`python -m influencerai` is the program `influencerai`."""

from influencerai.cli.main import main

if __name__ == "__main__":
    main()
