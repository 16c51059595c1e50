"""Secret values: what stands in this process's environment and must not be read by a tenant."""

from __future__ import annotations

import os
import re

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE_?KEY|DATABASE_URL|DSN")
_SHORTEST_SECRET = 8
_URL_CREDENTIALS = re.compile(r"://[^/\s@]+@")


def without_secrets(text: str) -> str:
    """The text with stars for secrets of the environment and for what a URL proves itself with."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _URL_CREDENTIALS.sub("://***@", text)


def _secrets() -> list[str]:
    """Values of the environment that should not be read by anybody, longest first."""
    found = {value for name, value in os.environ.items() if _SECRET_NAME.search(name.upper())}
    return sorted((value for value in found if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
