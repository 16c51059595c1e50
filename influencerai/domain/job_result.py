"""Job results: the shapes that `result` has while a job runs, when it is completed, and when it failed.

A worker that is not ours may add fields and leave any of these out; those that it sends have these types.
"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _absent(description: str | None = None) -> Any:
    """A field that may be absent, but is not null."""
    return Field(default=None, description=description)


def _drop_defaults(schema: dict[str, Any]) -> None:
    for found in schema.get("properties", {}).values():
        found.pop("default", None)


class _Result(BaseModel):
    """Open to further fields, whatever they are called."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow", strict=True, json_schema_extra=_drop_defaults)


class JobProgress(_Result):
    """How far a running job is."""

    current_epoch: int = _absent("From 1; 0 before the first step.")
    total_epochs: int = _absent()
    loss: float | None = _absent("Of the last step.")
    estimated_time_remaining: str = _absent('Such as "45 minutes".')
    estimated_seconds_remaining: float = _absent()
    step: int = _absent("Optimizer steps done.")
    total_steps: int = _absent()


class RunningResult(_Result):
    """Result of a job that runs."""

    progress: JobProgress = _absent()


class CompletedResult(_Result):
    """Result of a completed job."""

    lora_path: str = _absent("The final file, relative to the root.")
    checkpoints: list[str] = _absent("File names, the final one last.")
    final_loss: float | None = _absent("Mean loss of the last epoch.")
    training_time_minutes: float = _absent()
    validation_loss: float | None = _absent()
    warnings: list[str] = _absent()


class FailedResult(_Result):
    """Result of a failed or cancelled job."""

    error: str = _absent("What went wrong, with the remedy.")
    code: str = _absent("Code of the error, such as model or out_of_memory.")
    remedy: str | None = _absent("What to do about it.")
    epoch: int = _absent("Epoch that it was in, from 1; 0 before the first step.")
    partial_checkpoints: list[str] = _absent("File names of the epochs that it left.")
    cancelled: bool = _absent("True where somebody asked for the end.")


def check_result(result: dict[str, Any]) -> dict[str, Any]:
    """Refuse a result in which a known field has another type.

    Raises:
        ValueError: names each such field and the type that it should have.
    """
    wrong: dict[str, str] = {}
    for shape in (RunningResult, CompletedResult, FailedResult):
        try:
            shape.model_validate(result)
        except pydantic.ValidationError as error:
            wrong |= {".".join(map(str, item["loc"])): item["msg"] for item in error.errors()}
    if wrong:
        raise ValueError("; ".join(f"{name}: {text}" for name, text in wrong.items()))
    return result
