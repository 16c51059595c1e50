"""A LoRA config as it is stored: the config, whose it is, and when it was made and changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.page import PageQuery, QueryBoolean, QueryText
from influencerai.domain.wire import Timestamp, WireModel

NULLABLE = frozenset({"description", "outputPath"})
"""Fields that a change may clear by null."""


class LoraConfigRecord(LoraConfig):
    """A stored configuration."""

    id: str
    tenant_id: str
    created_at: Timestamp
    updated_at: Timestamp

    @property
    def config(self) -> LoraConfig:
        """The configuration alone."""
        return LoraConfig.model_construct(**{name: getattr(self, name) for name in LoraConfig.model_fields})


class LoraConfigQuery(PageQuery):
    """Filters and order of the list of configurations."""

    is_default: QueryBoolean | None = Field(default=None, description="Only the default config, or all others.")
    model_name: QueryText | None = Field(default=None, max_length=255, description="Only configs of this base model.")
    sort_by: Literal["createdAt", "updatedAt", "name"] = "createdAt"


def _forbid_null(schema: dict[str, Any]) -> None:
    """Absent means unchanged; null means nothing but to clear a text."""
    for name, found in schema["properties"].items():
        found.pop("default")
        if name not in NULLABLE:
            [value] = [item for item in found.pop("anyOf") if item != {"type": "null"}]
            found.update(value)


if TYPE_CHECKING:

    class LoraConfigChange(WireModel):
        """Any of a configuration's fields."""

else:

    class _Change(WireModel):
        model_config = ConfigDict(json_schema_extra=_forbid_null)

    LoraConfigChange = create_model(
        "LoraConfigChange",
        __base__=_Change,
        __doc__="Any of a configuration's fields. Null clears `description` and `outputPath`.",
        **{
            name: (
                Annotated[(field.annotation, field.description, *field.metadata)] | None,
                Field(None, description=field.description),
            )
            for name, field in LoraConfig.model_fields.items()
        },
    )
    LoraConfigChange.server_fields = LoraConfig.server_fields
