"""Imported by a fork server: what is imported afterwards, there or in a child, is named on standard error."""

import sys


def _tell(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import":
        sys.stderr.write(f"imports {arguments[0]}\n")


sys.addaudithook(_tell)
