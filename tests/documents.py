"""What a document shows, executed: the blocks of a Markdown file, run in order in one folder.

    ```console            every line after "$ " is run by bash and must exit with 0; other lines are output
    ```python             a script of its own, run by the interpreter that runs the tests
    ```toml influencerai.toml     (any language, then a name) a file that is written
    ```text, ```mermaid, and the languages of files without a name are only read

`<!-- not run: REASON -->` on the line above a block leaves it out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = frozenset({"console", "json", "mermaid", "python", "text", "toml", "yaml"})
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"```(?P<language>\w*)(?: (?P<file>\S+))?\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block; `line` is where it begins, from 1."""

    line: int
    language: str
    file: str | None
    body: str
    not_run: str | None

    @property
    def is_executable(self) -> bool:
        return self.not_run is None and (self.file is not None or self.language in ("console", "python"))

    @property
    def commands(self) -> list[str]:
        """The commands of a console block, continued lines joined."""
        joined = self.body.replace("\\\n", " ")
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def read_blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, in order."""
    return [
        Block(
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            file=found["file"],
            body=found["body"],
            not_run=found["reason"],
        )
        for found in _BLOCK.finditer(text)
    ]


def execute(text: str, *, folder: Path, timeout: float = 900) -> Iterator[str]:
    """Run every executable block of `text` in `folder`, offline; yields what each command printed.

    Raises:
        AssertionError: a command did not exit with 0; with its line and output.
        subprocess.TimeoutExpired: one command took longer than `timeout` seconds.
    """
    for block in read_blocks(text):
        if not block.is_executable:
            continue
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
        elif block.language == "python":
            yield _run([sys.executable, "-c", block.body], line=block.line, folder=folder, timeout=timeout)
        else:
            for command in block.commands:
                arguments = ["bash", "-euo", "pipefail", "-c", command]
                yield _run(arguments, line=block.line, folder=folder, timeout=timeout)


def _run(arguments: list[str], *, line: int, folder: Path, timeout: float) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFLUENCERAI_")}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    environment["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"line {line}: {arguments[-1]}\nexit {done.returncode}\n{done.stdout}"
    return done.stdout
