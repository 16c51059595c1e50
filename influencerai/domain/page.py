"""Page: a slice of a list, and how the list is filtered and sorted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field, WithJsonSchema

from influencerai.domain.wire import NO_NUL, WireModel

Item = TypeVar("Item")
SortOrder = Literal["asc", "desc"]


def query_integer(value: Any) -> Any:
    """A query string knows only text: digits are an integer, and nothing else is."""
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,30}", value, re.ASCII):
            raise ValueError("Input should be an integer, such as 20")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("Input should be an integer, such as 20")
    return value


def _boolean(value: Any) -> Any:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("Input should be true or false")
    return value


QueryInteger = Annotated[int, BeforeValidator(query_integer)]
QueryBoolean = Annotated[bool, BeforeValidator(_boolean)]
QueryText = Annotated[str, NO_NUL, WithJsonSchema({"type": "string", "pattern": "^[^\\x00]*$"})]


class PageQuery(WireModel):
    """Which slice; `take` items after the first `skip`."""

    take: QueryInteger = Field(default=20, ge=1, le=100, description="Items in the page.")
    skip: QueryInteger = Field(default=0, ge=0, le=2**63 - 1, description="Items before the page.")
    sort_order: SortOrder = Field(default="desc", description="Direction of the sort field, then of the id.")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Item]):
    """Items of one page, and how many the whole list holds."""

    items: tuple[Item, ...]
    total: int
    take: int
    skip: int
