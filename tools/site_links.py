"""Pages of the site, where MkDocs reads them otherwise than our tests do.

Notebooks are pages (tools/site_notebooks.py). What else a page links to outside of docs/ lies in the repository, and
is named instead. The file's name that a block has
beside its language (tests/documents.py) becomes its title.
"""

from __future__ import annotations

import re
from typing import Any

_NOTEBOOK = re.compile(r"\]\(\.\./notebooks/(\w+)\.ipynb\)")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)[^)\s]*\)")
_SERVER = re.compile(r"^```(\w+) background$", re.MULTILINE)
_FILE = re.compile(r"^```(\w+) ([\w./-]+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with every page."""
    markdown = _SERVER.sub(r"```\1", markdown)
    markdown = _FILE.sub(r'```\1 title="\2"', markdown)
    markdown = _NOTEBOOK.sub(r"](notebooks/\1.md)", markdown)
    return _OUTSIDE.sub(_named, markdown)


def _named(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return f"`{path}`" if text.strip("`").endswith(path.rpartition("/")[2]) else f"{text} (`{path}` in the repository)"
