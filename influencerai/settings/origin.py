"""Setting origin: where the value of a setting came from, for `influencerai doctor` and for messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from influencerai.settings.sources import variable


@dataclass(frozen=True, kw_only=True)
class SettingOrigin:
    """One setting as `influencerai doctor` shows it."""

    name: str
    value: Any
    origin: str
    """"default", "argument", the environment variable's name or the file's path."""


def shown(value: Any) -> Any:
    """The value as it may be seen: a URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", value) if isinstance(value, str) else value


def messages(error: pydantic.ValidationError) -> dict[str, list[str]]:
    """pydantic's report as {setting: messages}, without what only follows from another error."""
    found: dict[str, list[str]] = {}
    for item in error.errors():
        if item["type"] != "default_factory_not_called":
            found.setdefault(str(item["loc"][0]), []).append(item["msg"].removeprefix("Value error, "))
    return found


def label(name: str, origins: Mapping[str, str]) -> str:
    """The setting as the user wrote it."""
    origin = origins.get(name, "argument")
    return {"argument": name, variable(name): origin}.get(origin, f"{name} in {origin}")
