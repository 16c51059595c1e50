"""LoraConfig: the contract's reusable training configuration."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictBool, StrictInt, StringConstraints, field_validator

from influencerai.domain.output_path import check_output_path
from influencerai.domain.training_options import TrainingOptions
from influencerai.domain.wire import NO_NUL, Number, WireModel, check_plain


class LoraConfig(WireModel):
    """How to train a LoRA: base model, steps, rank, and, in `meta`, everything of `TrainingOptions`."""

    server_fields: ClassVar[frozenset[str]] = frozenset({"id", "tenantId", "createdAt", "updatedAt", "warnings"})

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), NO_NUL] = Field(
        description="Name of the configuration, unique per tenant."
    )
    description: Annotated[str, StringConstraints(max_length=500)] | None = Field(
        default=None, description="Human-readable description."
    )
    model_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), NO_NUL] = Field(
        description="Base model: an alias (sd15, sdxl), a hub id, a diffusers folder or a .safetensors file."
    )
    epochs: StrictInt = Field(default=10, ge=1, le=1000, description="Passes over the images.")
    learning_rate: Number = Field(default=1e-4, ge=1e-6, le=1.0, description="Peak learning rate of the UNet's LoRA.")
    batch_size: StrictInt = Field(default=1, ge=1, le=64, description="Images per forward pass.")
    resolution: StrictInt = Field(
        default=512, ge=128, le=2048, description="Training resolution in pixels (square root of area)."
    )
    network_dim: StrictInt = Field(default=32, ge=1, le=512, description="LoRA rank.")
    network_alpha: Number = Field(
        default=16, ge=1, le=512, description="LoRA alpha; the adapter is scaled by alpha / rank."
    )
    output_path: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        default=None, description="Folder for the trained files; default data/loras/<slug of the name>."
    )
    meta: dict[str, Any] = Field(default_factory=dict, description="Further options, see TrainingOptions.")
    is_default: StrictBool = Field(default=False, description="Whether this is the tenant's default configuration.")

    @field_validator("output_path", mode="before")
    @classmethod
    def _check_output_path(cls, path: Any) -> Any:
        if isinstance(path, str):
            check_output_path(path)
        return path

    @field_validator("meta")
    @classmethod
    def _check_options(cls, meta: dict[str, Any]) -> dict[str, Any]:
        TrainingOptions.model_validate(meta)
        check_plain(meta)
        return meta

    @classmethod
    def refusal_of(cls, name: str) -> str | None:
        """As of any field; an option of `meta` that stands beside it is an error too."""
        if (option := TrainingOptions.by_any_name(name)) is not None:
            return f"The option '{option}' belongs in meta: meta.{option}"
        if cls.nearest_field(name) is None and (option := TrainingOptions.nearest_field(name)) is not None:
            return f"Unknown field '{name}', did you mean 'meta.{option}'?"
        return super().refusal_of(name)

    @property
    def options(self) -> TrainingOptions:
        """The typed view of `meta`, absent keys at their defaults."""
        return TrainingOptions.model_validate(self.meta)

    @property
    def warnings(self) -> list[str]:
        """What is allowed but probably not meant."""
        found = [_ignored(name) for name in TrainingOptions.unknown_fields(self.meta)]
        if self.network_alpha > self.network_dim:
            found.append(
                f"networkAlpha {self.network_alpha:g} exceeds networkDim {self.network_dim}: the adapter is scaled by "
                f"{self.network_alpha / self.network_dim:g}; half the dim is usual."
            )
        return found


def _ignored(name: str) -> str:
    if (field := LoraConfig.by_any_name(name)) is not None:
        return f"meta.{name} is ignored: '{field}' is a field of the configuration, beside meta."
    return f"meta.{name} is not an option and is ignored."
