"""BaseModelEntry: a base model that configurations can name, and whether this server has it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influencerai.domain.wire import WireModel


class BaseModelEntry(WireModel):
    """A base model, or a well-known alias of one."""

    name: str = Field(description="Value of a configuration's modelName.")
    available: bool = Field(description="Whether a job of this server can train on it.")
    alias: bool = Field(default=False, description="Whether the name is a short one of a well-known model.")
    hub_id: str | None = Field(default=None, description="Name on the Hugging Face hub, where it has that form.")
    family: str | None = Field(default=None, description="sd15 or sdxl; null where it is not available.")
    layout: Literal["diffusers", "single_file"] | None = None
    size: int | None = Field(default=None, description="Bytes of the weights.")
    path: str | None = Field(default=None, description="Place in the models folder.")
    problem: str | None = Field(default=None, description="Why it is not available.")
    remedy: str | None = Field(default=None, description="What to do about that.")
