"""The one error tree: every error a user can meet has a stable code, a message and a remedy.

Vendor errors (torch, diffusers, Pillow, ...) are wrapped where they enter, so that callers catch only these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class InfluencerAIError(Exception):
    """Something went wrong in InfluencerAI."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None, *, remedy: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.remedy = remedy
        self.failure: dict[str, Any] | None = None
        """The contract's result of a failed job, where the error ended a run."""
        self.status_code: int | None = None
        """The HTTP status, where a server answered with the error."""
        super().__init__(self.message)

    @property
    def errors(self) -> dict[str, list[str]]:
        """What is wrong with which field, by wire name; empty where no field is to blame."""
        return dict(getattr(self, "field_errors", {}))

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class ValidationError(InfluencerAIError):
    """A setting, option or field has a value that cannot be used.

    `field_errors` maps a field's wire name (nested: `meta.optimizer`) to its messages.
    """

    code = "validation"

    def __init__(
        self,
        message: str = "Validation failed",
        *,
        field_errors: Mapping[str, list[str]] | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.field_errors: dict[str, list[str]] = dict(field_errors or {})

    def __str__(self) -> str:
        details = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in self.field_errors.items())
        return f"{super().__str__()}: {details}" if details else super().__str__()


class DependencyMissingError(InfluencerAIError):
    """A package that this operation needs is not installed."""

    code = "dependency_missing"


class DatasetError(InfluencerAIError):
    """The folder of images cannot be trained on."""

    code = "dataset"


class ModelError(InfluencerAIError):
    """The base model cannot be found, read or used."""

    code = "model"


class TrainingError(InfluencerAIError):
    """The training stopped on an error."""

    code = "training"


class DivergedError(TrainingError):
    """The loss or a gradient is not a number any more."""

    code = "diverged"


class OutOfMemoryError(TrainingError):
    """The device has not enough memory for this training."""

    code = "out_of_memory"


class StoppedError(TrainingError):
    """The training was asked to stop and left a resumable state."""

    code = "stopped"


class CheckpointError(InfluencerAIError):
    """A resumable state cannot be read or does not belong to this run."""

    code = "checkpoint"


class ExportError(InfluencerAIError):
    """The LoRA file does not hold what was trained."""

    code = "export"


class NotFoundError(InfluencerAIError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"

    def __init__(self, message: str | None = None, *, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.field_errors: dict[str, list[str]] = {} if field is None else {field: [self.message]}

    @classmethod
    def of(cls, noun: str, id: str, *, field: str | None = None) -> NotFoundError:
        """The contract's sentence, such as "Dataset abc not found"; `field` is what named it in a request's body."""
        return cls(f"{noun} {id} not found", field=field)


class ConflictError(InfluencerAIError):
    """The request contradicts what is there.

    `existing_id` names what it collides with, where there is one.
    """

    code = "conflict"

    def __init__(
        self, message: str | None = None, *, existing_id: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.existing_id = existing_id


class RefusedError(InfluencerAIError):
    """The request cannot be done in the present state of things."""

    code = "refused"


class AuthenticationError(InfluencerAIError):
    """The request does not say who sends it, or cannot prove it."""

    code = "unauthorized"


class PermissionDeniedError(InfluencerAIError):
    """Who sends the request may not do this."""

    code = "forbidden"


class TooManyError(InfluencerAIError):
    """There is too much of something; `retry_after` says in how many seconds it is worth trying again."""

    code = "too_many"

    def __init__(self, message: str | None = None, *, retry_after: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class InUseError(RefusedError):
    """Active jobs use what was to be deleted; `jobs` says how many."""

    code = "in_use"

    def __init__(self, message: str | None = None, *, jobs: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.jobs = jobs


class FencedOffError(InfluencerAIError):
    """Another attempt owns the job now."""

    code = "fenced_off"


class StoreError(InfluencerAIError):
    """The database cannot be used."""

    code = "store"


class SchemaError(StoreError):
    """The database's schema is not the one of this version."""

    code = "schema"


class UnreachableError(InfluencerAIError):
    """The server does not answer."""

    code = "unreachable"


class TimedOutError(InfluencerAIError, TimeoutError):
    """What was waited for has not happened in time."""

    code = "timed_out"
