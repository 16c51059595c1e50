"""Caption text: one caption as it enters a training."""

from __future__ import annotations

MAX_CAPTION_BYTES = 2**16


def clean(text: str) -> str:
    """A caption on one line, without surplus white space, encodable as UTF-8.

    Lines are joined with commas, or with a blank where a line ends in punctuation.
    """
    text = text.replace("\0", " ").encode("utf-8", "replace").decode()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    joined = ""
    for line in filter(None, lines):
        separator = "" if not joined else " " if joined[-1] in ".,;:!?" else ", "
        joined += separator + line
    return joined
