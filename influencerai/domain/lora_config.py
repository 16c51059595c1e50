"""LoraConfig: the contract's reusable training configuration."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from influencerai.domain.keyword_model import KeywordModel
from influencerai.domain.option_document import OptionDocument, refuse_repeated
from influencerai.domain.output_path import check_output_path
from influencerai.domain.plain_values import check_plain, plain
from influencerai.domain.presets import PRESETS, PresetName
from influencerai.domain.training_options import TrainingOptions
from influencerai.domain.wire import NO_NUL, STORED, Document, Number, SchemaOf
from influencerai.errors import ValidationError

USUAL_IMAGES_SEEN = 2000
"""Of a character: 15 to 30 images, each about 100 times."""
PRODIGY_RATE = 1.0


class LoraConfig(KeywordModel):
    """How to train a LoRA: base model, steps, rank, and, in `meta`, everything of `TrainingOptions`.

        LoraConfig(name="me", model_name="sdxl", resolution=1024, trigger_word="ohwx", optimizer="AdamW8bit")
        LoraConfig.preset("balanced", name="me", model_name="sdxl")

    In Python an option is a keyword too, or all are `options=TrainingOptions(...)`; `meta` names them as JSON does.
    """

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
    learning_rate: Number = Field(
        default=1e-4, ge=1e-6, le=1.0, description="Peak learning rate of the UNet's LoRA; default with Prodigy: 1."
    )
    batch_size: StrictInt = Field(default=1, ge=1, le=64, description="Images per forward pass.")
    resolution: StrictInt = Field(
        default=512, ge=128, le=2048, description="Training resolution in pixels (square root of area)."
    )
    network_dim: StrictInt = Field(default=32, ge=1, le=512, description="LoRA rank.")
    network_alpha: Number = Field(
        default=16, ge=1, le=512, description="LoRA alpha; the adapter is scaled by alpha / rank."
    )
    output_path: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        default=None,
        description="Folder for the trained files; default data/loras/<slug of the name>. Its last part names the "
        "files and has at most 200 bytes.",
    )
    meta: Annotated[Document, SchemaOf(TrainingOptions)] = Field(
        default_factory=dict, description="Further options, see TrainingOptions."
    )
    is_default: StrictBool = Field(default=False, description="Whether this is the tenant's default configuration.")

    if TYPE_CHECKING:  # for completion and type checkers; the fields above decide

        def __init__(
            self,
            *,
            name: str,
            model_name: str,
            description: str | None = None,
            epochs: int = 10,
            learning_rate: float = 1e-4,
            batch_size: int = 1,
            resolution: int = 512,
            network_dim: int = 32,
            network_alpha: float = 16,
            output_path: str | None = None,
            meta: Mapping[str, Any] | TrainingOptions = ...,
            options: TrainingOptions | Mapping[str, Any] | None = None,
            is_default: bool = False,
            **option_fields: Any,
        ) -> None: ...

    @classmethod
    def preset(cls, preset: PresetName, *positional: Any, **fields: Any) -> Self:
        """A configuration that starts from a preset; `fields`, named as in the constructor, win over it.

        Raises:
            ValidationError: there is no such preset, or a field cannot be used.
        """
        cls._refuse_positional(positional, example=f"preset({preset!r}, {{}}=...)")
        start = cls._start(preset)
        own = cls.by_wire_name(cls._keywords(plain(fields)))
        meta = own.pop("meta", {})
        meta = without_other_aim(start.pop("meta"), given={*own, *meta}) | meta
        return cls(**start | own, meta=meta)

    def aimed(self) -> Self:
        """The configuration, aiming at the usual number of images seen where it says nothing of how long to train."""
        options = self.options.model_fields_set
        if "epochs" in self.model_fields_set or {"repeats", "images_seen"} & options:
            return self
        return self.with_option("images_seen", USUAL_IMAGES_SEEN)

    def with_option(self, name: str, value: Any) -> Self:
        """A copy with one option, by its name in Python, set to a value that needs no validation."""
        wire = TrainingOptions.model_fields[name].alias or name
        meta = {key: item for key, item in self.meta.items() if key not in (name, wire)} | {wire: value}
        options = self.options.model_copy(update={name: value})
        return self.model_copy(update={"meta": OptionDocument(meta, options)})

    @classmethod
    def _keywords(cls, fields: dict[str, Any], *, base: Self | None = None) -> dict[str, Any]:
        """Moves options that are given by keyword into `meta`; what `base` has in `meta` stays."""
        options, aliases = TrainingOptions.model_fields, TrainingOptions.by_wire_name
        own = {name: value for name, value in fields.items() if name not in ("meta", "options", *options)}
        single = {name: value for name, value in fields.items() if name in options}
        sources = {
            "meta": _option_document(fields.get("meta"), place="meta"),
            "options": _option_document(fields.get("options"), place="options"),
            "a keyword": aliases(TrainingOptions._keywords(single)),
        }
        refuse_repeated(sources)
        meta = dict(base.meta) if base and fields.get("meta") is None else {}
        for source in sources.values():
            meta |= source
        return own | ({"meta": meta} if meta or "meta" in fields else {})

    @classmethod
    def _parameters(cls) -> list[inspect.Parameter]:
        kind = inspect.Parameter.KEYWORD_ONLY
        options = inspect.Parameter("options", kind, default=None, annotation=TrainingOptions | None)
        return [*super()._parameters(), options, *TrainingOptions._parameters()]

    @classmethod
    def _description(cls, name: str) -> str:
        if name == "options":
            return "All options together; each is a keyword of its own, too."
        return super()._description(name) or TrainingOptions._description(name)

    @classmethod
    def _shown_name(cls, wire_name: str) -> str:
        place, _, option = wire_name.partition(".")
        return TrainingOptions._shown_name(option) if place == "meta" and option else super()._shown_name(wire_name)

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, prefix: str = "", ignore_unknown: bool = False) -> Self:
        """See `KeywordModel.parse`. A `preset` is what the document starts from.

        Raises:
            ValidationError: with one entry per bad field, option or unknown name.
        """
        if ignore_unknown or not isinstance(data, Mapping) or data.get("preset") is None:
            return super().parse(data, prefix=prefix, ignore_unknown=ignore_unknown)
        own = cls.by_wire_name({name: value for name, value in data.items() if name != "preset"})
        start = cls._start(data["preset"])
        if isinstance(meta := plain(own.get("meta") or {}), Mapping):
            meta = TrainingOptions.by_wire_name(meta)
            own["meta"] = without_other_aim(start["meta"], given={*own, *meta}) | meta
        return super().parse(start | own, prefix=prefix)

    @classmethod
    def _start(cls, preset: object) -> dict[str, Any]:
        """The fields of a preset by wire name.

        Raises:
            ValidationError: there is no such preset.
        """
        for name, found in PRESETS.items():
            if name == preset:
                return found.fields()
        raise ValidationError(field_errors={"preset": [f"There is no preset '{preset}': {', '.join(PRESETS)}."]})

    @classmethod
    def _unknown(cls, name: str) -> str:
        if name == "preset":
            return f"A preset is a start: {cls.__name__}.preset('balanced', name=..., model_name=...)"
        option = TrainingOptions.nearest_field(name)
        if cls.nearest_field(name) is None and option is not None:
            return f"There is no field or option '{name}', did you mean '{TrainingOptions._shown_name(option)}'?"
        return super()._unknown(name)

    @field_validator("model_name")
    @classmethod
    def _check_model_name(cls, name: str, info: ValidationInfo) -> str:
        if info.context is not STORED and not name.isprintable():
            raise ValueError("Input should hold no line breaks, and no control or format characters")
        return name

    @field_validator("output_path", mode="before")
    @classmethod
    def _check_output_path(cls, path: Any) -> Any:
        if isinstance(path, str):
            check_output_path(path)
        return path

    @field_validator("meta", mode="wrap")
    @classmethod
    def _check_options(cls, sent: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> dict[str, Any]:
        meta: dict[str, Any] = handler(sent)
        options = TrainingOptions.model_validate(sent, context=info.context)
        if options.images_seen is not None and "repeats" in options.model_fields_set:
            raise ValueError("imagesSeen chooses repeats: give one of the two")
        check_plain(meta)
        return OptionDocument(meta, options)

    @model_validator(mode="after")
    def _choose_rate(self) -> Self:
        """Prodigy finds the rate itself, as a multiple of this one: 1, where none is given."""
        if "learning_rate" not in self.model_fields_set and self.meta.get("optimizer") == "Prodigy":
            self.__dict__["learning_rate"] = PRODIGY_RATE
        return self

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
        """The typed view of `meta`, absent keys at their defaults; parsed once, when the config is validated."""
        if not isinstance(self.meta, OptionDocument):  # a copy whose meta was replaced without validation
            self.__dict__["meta"] = OptionDocument(self.meta, TrainingOptions.model_validate(self.meta, context=STORED))
        found: TrainingOptions = self.__dict__["meta"].options
        return found

    @property
    def warnings(self) -> list[str]:
        """Warnings about values that are valid but probably a mistake."""
        found = [_ignored(name) for name in TrainingOptions.unknown_fields(self.meta)]
        if self.network_alpha > self.network_dim:
            found.append(
                f"networkAlpha {self.network_alpha:g} exceeds networkDim {self.network_dim}: the adapter is scaled by "
                f"{self.network_alpha / self.network_dim:g}; half the dim is usual."
            )
        return found


def without_other_aim(meta: Mapping[str, Any], *, given: Collection[str]) -> dict[str, Any]:
    """A preset's `meta` without what stronger values replace: who sets epochs or repeats decides what is seen."""
    replaced = {
        "imagesSeen": {"epochs", "repeats"}.intersection(given) and "imagesSeen" not in given,
        "repeats": "imagesSeen" in given and "repeats" not in given,
    }
    return {name: value for name, value in meta.items() if not replaced.get(name)}


def _ignored(name: str) -> str:
    if (field := LoraConfig.by_any_name(name)) is not None:
        return f"meta.{name} is ignored: '{field}' is a field of the configuration, beside meta."
    return f"meta.{name} is not an option and is ignored."


def _option_document(options: object, *, place: str) -> dict[str, Any]:
    """Options by their names in JSON; None stands for none.

    Raises:
        ValidationError: neither options nor a mapping, or names that are none.
    """
    if options is None:
        return {}
    if not isinstance(options, TrainingOptions | Mapping):
        raise ValidationError(field_errors={place: ["Input should be TrainingOptions or a mapping"]})
    if isinstance(options, Mapping):
        if names := [repr(name) for name in options if not isinstance(name, str)]:
            raise ValidationError(field_errors={place: [f"Names should be texts, not {', '.join(names)}"]})
        if place == "meta":
            return TrainingOptions.by_wire_name(options)
        if fields := {name: [_BESIDE.format(place)] for name in options if LoraConfig.by_any_name(name)}:
            raise ValidationError(field_errors=fields)
        options = TrainingOptions(**options)
    return options.model_dump(mode="json", by_alias=True, exclude_unset=True)


_BESIDE = "This is a field of the configuration, beside {}"
