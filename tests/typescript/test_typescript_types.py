"""The types of the TypeScript SDK are those of the API: its document, and what is generated from it, are current."""

from __future__ import annotations

import json

import pytest

from tests.typescript.node import SDK, Package
from tools.write_openapi import DOCUMENT, render


@pytest.mark.slow
def test_the_document_is_that_of_the_app() -> None:
    assert DOCUMENT.read_text("utf-8") == render(), "run: python tools/write_openapi.py"


def test_the_lock_file_is_that_of_the_package_and_names_no_host() -> None:
    package = json.loads((SDK / "package.json").read_text("utf-8"))
    text = (SDK / "package-lock.json").read_text("utf-8")
    locked = json.loads(text)["packages"][""]
    assert (locked["name"], locked["version"]) == (package["name"], package["version"])
    assert locked["devDependencies"] == package["devDependencies"]
    assert "dependencies" not in package
    assert '"resolved"' not in text


@pytest.mark.slow
@pytest.mark.xdist_group("typescript")
def test_the_types_are_those_of_the_document(package: Package) -> None:
    written = (package.folder / "src" / "schema.ts").read_text("utf-8")
    package.npm("run", "generate")
    assert (package.folder / "src" / "schema.ts").read_text("utf-8") == written, "run: npm run generate"
