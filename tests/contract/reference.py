"""The API's reference, `reference.md` word for word, cut into the examples that tests send and compare with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import CONTRACT_PORT, Server

DATASET = "clx4k9j2k0000xyz"
OTHER_DATASET = "clx4k8h1j0000abc"
CONFIG = "clx4kb3n40000def"
JOB = "clx4kd5m70000ghi"
"""Ids as the reference writes them."""
_TEXT = (Path(__file__).parent / "reference.md").read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One fenced block: the heading it stands under, the line above it, and its text."""

    title: str
    label: str
    language: str
    body: str

    @property
    def document(self) -> Any:
        """The block as JSON."""
        return json.loads(self.body)


def examples() -> list[Example]:
    """Every block, in order."""
    found, title, label = [], "", ""
    fence: list[str] | None = None
    language = ""
    for line in _TEXT.splitlines(keepends=True):
        if fence is not None and line.startswith("```"):
            found.append(Example(title=title, label=label, language=language, body="".join(fence)))
            fence = None
        elif fence is not None:
            fence.append(line)
        elif line.startswith("```"):
            language, fence = line.strip("`\n"), []
        elif line.startswith("#"):
            title, label = line.strip("# \n"), ""
        elif line.strip():
            label = line.strip().replace("*", "").rstrip(":")
    return found


def example(title: str, label: str) -> Example:
    """The block under the heading `title` whose line above begins with `label`."""
    matches = [item for item in examples() if item.title == title and item.label.startswith(label)]
    assert len(matches) == 1, f"{title!r} has {len(matches)} blocks {label!r}"
    return matches[0]


def as_sent(text: str, server: Server, ids: Mapping[str, str]) -> str:
    """The text with real ids in place of the reference's; the port changes only where 3001 was taken."""
    for shown, real in ids.items():
        text = text.replace(shown, real)
    return text.replace(f"localhost:{CONTRACT_PORT}", f"localhost:{server.port}")
