"""What a document shows, executed: the blocks of a Markdown file, run in order in one folder.

    ```console            every line after "$ " is run by bash and must exit with 0; other lines are output
    ```python             a script of its own, run by the interpreter that runs the tests
    ```console background ...of which each is a server, which runs until the next such block or the end
    ```toml influencerai.toml     (any language, then a name) a file that is written
    ```text, ```mermaid, and the languages of files without a name are only read

`<!-- not run: REASON -->` on the line above a block leaves it out.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

LANGUAGES = frozenset({"console", "json", "mermaid", "python", "text", "toml", "typescript", "yaml"})
START_SECONDS = 90.0
STOP_SECONDS = 90.0
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
    def is_background(self) -> bool:
        return self.language == "console" and self.file == "background"

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


def execute(
    text: str, *, folder: Path, timeout: float = 900, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run every executable block of `text` in `folder`, offline; yields what each command printed.

    `environment` is added to that of the commands.

    Raises:
        AssertionError: a command did not exit with 0; with its line and output.
        subprocess.TimeoutExpired: one command took longer than `timeout` seconds.
    """
    variables = _environment(environment or {})
    servers = ExitStack()
    with servers:
        for block in read_blocks(text):
            if block.is_executable and block.is_background:
                servers.close()
                for command in block.commands:
                    servers.enter_context(_serving(command, line=block.line, folder=folder, environment=variables))
            elif block.is_executable:
                yield from _execute(block, folder=folder, timeout=timeout, environment=variables)


def _execute(block: Block, *, folder: Path, timeout: float, environment: Mapping[str, str]) -> Iterator[str]:
    run = partial(_run, line=block.line, folder=folder, timeout=timeout, environment=environment)
    if block.file is not None:
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body, encoding="utf-8")
    elif block.language == "python":
        yield run([sys.executable, "-c", block.body])
    else:
        for command in block.commands:
            yield run(["bash", "-euo", "pipefail", "-c", command])


@contextmanager
def _serving(command: str, *, line: int, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """A server, from the moment at which it says where it listens until it is interrupted."""
    log = folder / f"server-{line}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while b"listens on" not in log.read_bytes():
        late = process.poll() is not None or time.monotonic() > deadline
        assert not late, f"line {line}: {command}\n{log.read_text(errors='replace')}"
        time.sleep(0.1)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(STOP_SECONDS)
    assert code == 0, f"line {line}: {command}\nexit {code}\n{log.read_text(errors='replace')}"


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("INFLUENCERAI_")}
    path = os.pathsep.join((str(Path(sys.executable).parent), own["PATH"]))
    return {**own, "PATH": path, "HF_HUB_OFFLINE": "1", **added}


def _run(arguments: list[str], *, line: int, folder: Path, timeout: float, environment: Mapping[str, str]) -> str:
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
