"""Ray's command line for `influencerai node start`: its faults are printed, its advice on other commands is not."""

from __future__ import annotations

import sys
from typing import Any

from ray.autoscaler._private.cli_logger import cli_logger
from ray.scripts import scripts

_FAULTS = frozenset({"WARN", "WARNING", "ERR", "ERROR", "PANIC"})


def main() -> None:
    """Run Ray with the arguments of this program."""
    write: Any = cli_logger._print

    def write_faults(message: str, _level_str: str = "INFO", **options: Any) -> None:
        if _level_str in _FAULTS:
            write(message, _level_str=_level_str, **options)

    vars(cli_logger)["_print"] = write_faults
    sys.exit(scripts.main())  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
