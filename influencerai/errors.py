"""The one error tree: every error a user can meet has a stable code, a message and a remedy.

Vendor errors (torch, diffusers, Pillow, ...) are wrapped where they enter, so that callers catch only these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class InfluencerAIError(Exception):
    """Something went wrong in InfluencerAI."""

    code: ClassVar[str] = "error"
    advice: ClassVar[str] = "See the log for details. Open an issue for what it calls a mistake of InfluencerAI."

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

    @property
    def public_message(self) -> str:
        """The message for people who do not run the server: nothing of its machines."""
        return self.message

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class ValidationError(InfluencerAIError):
    """A setting, option or field has a value that cannot be used.

    `field_errors` maps a field's wire name (nested: `meta.optimizer`) to its messages.
    """

    code = "validation"
    advice = "Correct each field that is named; its message says what it may be."

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
    advice = "Install the extra that is named: `train` to train, `serve` to serve, `postgres` for that database."


class DatasetError(InfluencerAIError):
    """The folder of images cannot be trained on."""

    code = "dataset"
    advice = (
        "`influencerai dataset check FOLDER` names every picture that cannot be read, captions without the "
        "trigger word, and duplicates."
    )


class ModelError(InfluencerAIError):
    """The base model cannot be found, read or used."""

    code = "model"
    advice = (
        "Name an alias, a hub id, a diffusers folder or a `.safetensors` file of the right family, and have "
        "it in `models_dir` where nothing may be downloaded."
    )


class TrainingError(InfluencerAIError):
    """The training stopped on an error."""

    code = "training"
    advice = (
        "The message says what has failed. The state of the last epoch is kept: `--resume`, or `POST /jobs/ID/retry`."
    )


class DivergedError(TrainingError):
    """The loss or a gradient is not a number any more."""

    code = "diverged"
    advice = "Lower `learningRate`, or train in fp32 or bf16; the message says at which step it happened."


class OutOfMemoryError(TrainingError):
    """The device has not enough memory for this training."""

    code = "out_of_memory"
    advice = (
        "The remedy names settings that need less: `gradientCheckpointing`, a smaller `batchSize` with "
        "`gradientAccumulation`, a lower `resolution`."
    )


class StoppedError(TrainingError):
    """The training was asked to stop and left a resumable state."""

    code = "stopped"
    advice = "Nothing is lost: go on with `--resume`, or retry the job."

    def _render_traceback_(self) -> list[str]:
        """IPython prints this instead of a traceback: whoever pressed Stop needs none."""
        return [f"Stopped: {self}"]


class CheckpointError(InfluencerAIError):
    """A resumable state cannot be read or does not belong to this run."""

    code = "checkpoint"
    advice = (
        "The pictures or a setting have changed since the run began. Resume with what it was started with, or "
        "start anew."
    )


class ExportError(InfluencerAIError):
    """The LoRA file does not hold what was trained."""

    code = "export"
    advice = "The file was not kept. Free the disk or mend it, then resume: the weights are in the saved state."


class NotFoundError(InfluencerAIError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"
    advice = "Check the id and the tenant: what belongs to another tenant is not found."

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
    advice = "Read what exists already, which the message and `id` name, and decide what to keep."

    def __init__(
        self, message: str | None = None, *, existing_id: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.existing_id = existing_id


class RefusedError(InfluencerAIError):
    """The request cannot be done in the present state of things."""

    code = "refused"
    advice = "Do first what the message names, then send the request again."


class AuthenticationError(InfluencerAIError):
    """The request does not say who sends it, or cannot prove it."""

    code = "unauthorized"
    advice = "Send `x-tenant-id` in development, `Authorization: Bearer` with a key or a token in production."


class PermissionDeniedError(InfluencerAIError):
    """Who sends the request may not do this."""

    code = "forbidden"
    advice = "Use a credential of the tenant itself, or one that may do this."


class TooManyError(InfluencerAIError):
    """There is too much of something; `retry_after` says in how many seconds it is worth trying again.

    `quota` names the tenant's quota that is used up, with what is used and the limit, where it is one.
    """

    code = "too_many"
    advice = "Wait as long as `Retry-After` says; the clients do so by themselves."

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after: int,
        remedy: str | None = None,
        quota: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after
        self.quota = quota


class QuotaError(PermissionDeniedError):
    """The tenant has as much of something as it may have; `quota` names it, with what is used and the limit."""

    code = "quota"
    advice = (
        "Delete what is not needed any more; `GET /usage` shows every quota. The operator sets others with "
        "`influencerai admin quota set`."
    )

    def __init__(
        self, message: str | None = None, *, remedy: str | None = None, quota: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.quota = quota


class TooLargeError(QuotaError):
    """One request brings more than it may."""

    code = "too_large"
    advice = "Send less at once, such as fewer pictures in one upload."


def quota_use(name: str, used: float, limit: float) -> dict[str, Any]:
    """The `quota` of an error, as it stands in the answer."""
    return {"name": name, "used": used, "limit": limit}


class InUseError(RefusedError):
    """Active jobs use what was to be deleted; `jobs` says how many."""

    code = "in_use"
    advice = "Wait for the jobs that use it, or cancel them."

    def __init__(self, message: str | None = None, *, jobs: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.jobs = jobs


class FencedOffError(InfluencerAIError):
    """Another attempt owns the job now."""

    code = "fenced_off"
    advice = "Nothing: the attempt was slow or cut off, and another one has the job."


class StoreError(InfluencerAIError):
    """The database cannot be used."""

    code = "store"
    advice = "Check that the database runs and has room. Running jobs go on, and are recorded when it is back."

    def __init__(self, message: str | None = None, *, remedy: str | None = None, reason: str | None = None) -> None:
        super().__init__(message if reason is None else f"{message}: {reason}.", remedy=remedy)
        self._public_message = self.message if reason is None else f"{message}."

    @property
    def public_message(self) -> str:
        """Without the driver's reason, which names addresses."""
        return self._public_message


class SchemaError(StoreError):
    """The database's schema is not the one of this version."""

    code = "schema"
    advice = "Run `influencerai db upgrade` with the new version, before the servers start."


class UnreachableError(InfluencerAIError):
    """The server does not answer."""

    code = "unreachable"
    advice = "Check the address, and that the server runs: `curl ADDRESS/healthz`."


class TimedOutError(InfluencerAIError, TimeoutError):
    """What was waited for has not happened in time."""

    code = "timed_out"
    advice = "What was waited for goes on: wait again, or longer."
