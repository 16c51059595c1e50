"""Issue templates: GitHub can show them, and what they ask for exists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".github" / "ISSUE_TEMPLATE"
PROGRAM = str(Path(sys.executable).with_name("check-jsonschema"))


def check(schema: str, *files: Path) -> None:
    command = [PROGRAM, "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_forms_are_forms() -> None:
    forms = [path for path in FOLDER.glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 2
    check("vendor.github-issue-forms", *forms)
    check("vendor.github-issue-config", FOLDER / "config.yml")


def test_the_pages_that_they_link_to_exist() -> None:
    text = (FOLDER / "bug.yml").read_text("utf-8")
    assert "../blob/main/docs/troubleshooting.md" in text
    assert (FOLDER.parents[1] / "docs/troubleshooting.md").is_file()
