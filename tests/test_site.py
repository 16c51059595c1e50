"""The documentation as a site: built without a warning, every page in it, and no link that leads out of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.site_links import on_page_markdown
from tools.site_notebooks import page_of

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.parent.name for path in tmp_path.glob("*/index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= pages
    assert {path.parent.name for path in tmp_path.glob("notebooks/*/index.html")} == {
        path.stem for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    options = (tmp_path / "training-options/index.html").read_text("utf-8")
    assert "data/loras/&lt;slug of the name&gt;" in options
    reference = (tmp_path / "reference/index.html").read_text("utf-8")
    for name in ("Trainer", "LiveView", "wait_for_completion", "download"):
        assert name in reference
    for internal in ("settings_customise_sources", "worker_document", "job_threads"):
        assert internal not in reference
    assert not re.search(r'href="[^"]*\.\./\.\./\.\./', reference)
    unread = [path.parent.name for path in tmp_path.glob("**/index.html") if "<p>```" in path.read_text("utf-8")]
    assert unread == [], "a fenced block is shown as running text"


def test_what_lies_outside_of_the_docs_is_named() -> None:
    text = "See [the units](../deploy/systemd), [compose.yaml](../compose.yaml) and [settings](settings.md)."
    assert on_page_markdown(text) == (
        "See the units (`deploy/systemd` in the repository), `compose.yaml` and [settings](settings.md)."
    )


def test_notebooks_are_pages() -> None:
    assert on_page_markdown("[a sweep](../notebooks/04_sweep.ipynb)") == "[a sweep](notebooks/04_sweep.md)"
    page = page_of(ROOT / "notebooks/01_first_lora.ipynb")
    assert "```python" in page
    assert "data:image/png;base64," in page


def test_what_a_block_says_beside_its_language_is_its_title() -> None:
    text = "```toml conf/own.toml\nthreads = 3\n```\n\n```console background\n$ serve\n```\n\n```json\n{}\n```\n"
    assert on_page_markdown(text) == (
        '```toml title="conf/own.toml"\nthreads = 3\n```\n\n```console\n$ serve\n```\n\n```json\n{}\n```\n'
    )
