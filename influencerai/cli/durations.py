"""Durations on the command line: 90d, 12h, 8w."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}
_DURATION = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)\s*([hdwy])")


class Duration(click.ParamType[timedelta]):
    """A number with a unit: h, d, w or y (365 days)."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(str(value).strip().lower())
        if found is None:
            self.fail(f"'{value}' is no duration: write a number and h, d, w or y, as in 90d.", param, ctx)
        duration = float(found[1]) * _UNITS[found[2]]
        if duration > timedelta(days=36500):
            self.fail(f"'{value}' is more than 100 years.", param, ctx)
        return duration


DURATION = Duration()
