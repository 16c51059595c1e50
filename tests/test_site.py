"""The documentation as a site: built without a warning, every page in it, and no link that leads out of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.site_links import on_page_markdown

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.parent.name for path in tmp_path.glob("*/index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index", "notes"} <= pages
    reference = (tmp_path / "reference/index.html").read_text("utf-8")
    for name in ("Trainer", "LiveView", "wait_for_completion", "download"):
        assert name in reference
    assert not re.search(r'href="[^"]*\.\./\.\./\.\./', reference)
    unread = [path.parent.name for path in tmp_path.glob("**/index.html") if "<p>```" in path.read_text("utf-8")]
    assert unread == [], "a fenced block is shown as running text"


def test_what_lies_outside_of_the_docs_is_named() -> None:
    text = "See [a notebook](../notebooks/04_sweep.ipynb), [compose.yaml](../compose.yaml) and [settings](settings.md)."
    assert on_page_markdown(text) == (
        "See a notebook (`notebooks/04_sweep.ipynb` in the repository), `compose.yaml` and [settings](settings.md)."
    )


def test_what_a_block_says_beside_its_language_is_its_title() -> None:
    text = "```toml conf/own.toml\nthreads = 3\n```\n\n```console background\n$ serve\n```\n\n```json\n{}\n```\n"
    assert on_page_markdown(text) == (
        '```toml title="conf/own.toml"\nthreads = 3\n```\n\n```console\n$ serve\n```\n\n```json\n{}\n```\n'
    )
