"""The error tree: every error that a user can cause or meet has a stable code, a message and a remedy.

Vendor errors (torch, diffusers, Pillow, ...) are wrapped where they enter, so that callers catch only these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class InfluencerAIError(Exception):
    """An error in InfluencerAI."""

    code: ClassVar[str] = "error"
    advice: ClassVar[str] = "See the log for details. Open an issue if it reports a bug in InfluencerAI."

    def __init__(self, message: str | None = None, *, remedy: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.remedy = remedy
        self.failure: dict[str, Any] | None = None
        """The result of a failed job, where the error ended a run."""
        self.status_code: int | None = None
        """The HTTP status, where a server answered with the error."""
        super().__init__(self.message)

    @property
    def errors(self) -> dict[str, list[str]]:
        """The messages of each invalid field, by wire name; empty where no field is invalid."""
        return dict(getattr(self, "field_errors", {}))

    @property
    def public_message(self) -> str:
        """The message without details of the server's machines, for users of the API."""
        return self.message

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class ValidationError(InfluencerAIError):
    """A setting, option or field has an invalid value.

    `field_errors` maps a field's wire name (nested: `meta.optimizer`) to its messages.
    """

    code = "validation"
    advice = "Correct each named field; its message states the valid values."

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
    advice = "Install the named extra: `train` to train, `serve` to serve, `postgres` for that database."


class DatasetError(InfluencerAIError):
    """The folder of images cannot be trained on."""

    code = "dataset"
    advice = (
        "`influencerai dataset check FOLDER` lists every unreadable picture, captions without the "
        "trigger word, and duplicates."
    )


class ModelError(InfluencerAIError):
    """The base model cannot be found, read or used."""

    code = "model"
    advice = (
        "Name an alias, a hub id, a diffusers folder or a `.safetensors` file of the right family. Where "
        "downloads are off, put it into `models_dir`."
    )


class TrainingError(InfluencerAIError):
    """The training stopped on an error."""

    code = "training"
    advice = "The message names the cause. The last training state is kept: `--resume`, or `POST /jobs/ID/retry`."


class DivergedError(TrainingError):
    """The loss or a gradient is no longer a number."""

    code = "diverged"
    advice = "Lower `learningRate`, or train in fp32 or bf16; the message names the step."


class OutOfMemoryError(TrainingError):
    """The device does not have enough memory for this training."""

    code = "out_of_memory"
    advice = (
        "The remedy names options that need less: `gradientCheckpointing`, a smaller `batchSize` with "
        "`gradientAccumulation`, a lower `resolution`."
    )


class StoppedError(TrainingError):
    """The training was stopped and left a training state to resume from."""

    code = "stopped"
    advice = "Nothing is lost: resume with `--resume`, or retry the job."

    def _render_traceback_(self) -> list[str]:
        """IPython prints this instead of a traceback, which a user who pressed Stop does not need."""
        return [f"Stopped: {self}"]


class CheckpointError(InfluencerAIError):
    """A resumable state cannot be read or does not belong to this run."""

    code = "checkpoint"
    advice = (
        "The pictures or an option have changed since the run started. Resume with the original ones, or start a new "
        "run."
    )


class ExportError(InfluencerAIError):
    """The LoRA file differs from the trained adapter."""

    code = "export"
    advice = (
        "The file was deleted. Free space on the disk or repair it, then resume: the weights are in the training state."
    )


class NotFoundError(InfluencerAIError):
    """The requested object does not exist, or belongs to another tenant."""

    code = "not_found"
    advice = "Check the id and the tenant: objects of other tenants are not found."

    def __init__(self, message: str | None = None, *, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.field_errors: dict[str, list[str]] = {} if field is None else {field: [self.message]}

    @classmethod
    def of(cls, noun: str, id: str, *, field: str | None = None) -> NotFoundError:
        """The contract's sentence, such as "Dataset abc not found"; `field` is what named it in a request's body."""
        return cls(f"{noun} {id} not found", field=field)


class ConflictError(InfluencerAIError):
    """The request conflicts with an existing object.

    `existing_id` is its id, where there is one.
    """

    code = "conflict"
    advice = "Read the existing object, which the message and `id` name, and decide which to keep."

    def __init__(
        self, message: str | None = None, *, existing_id: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.existing_id = existing_id


class RefusedError(InfluencerAIError):
    """The request is not possible in the current state."""

    code = "refused"
    advice = "Do what the message names first, then send the request again."


class AuthenticationError(InfluencerAIError):
    """The request has no valid credential."""

    code = "unauthorized"
    advice = "Send `x-tenant-id` in development, `Authorization: Bearer` with a key or a token in production."


class PermissionDeniedError(InfluencerAIError):
    """The credential does not permit this request."""

    code = "forbidden"
    advice = "Use a credential of the tenant itself, or one with the necessary scope."


class TooManyError(InfluencerAIError):
    """A limit is reached; `retry_after` is the number of seconds to wait before the next try.

    `quota` has the name, the use and the limit of the exhausted quota, where it is one.
    """

    code = "too_many"
    advice = "Wait for the seconds in `Retry-After`; the clients do so by themselves."

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
    """A quota of the tenant is exhausted; `quota` has its name, the use and the limit."""

    code = "quota"
    advice = (
        "Delete what is no longer needed; `GET /usage` shows every quota. The operator changes quotas with "
        "`influencerai admin quota set`."
    )

    def __init__(
        self, message: str | None = None, *, remedy: str | None = None, quota: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.quota = quota


class TooLargeError(QuotaError):
    """The request is larger than allowed."""

    code = "too_large"
    advice = "Send less at once, such as fewer pictures in one upload."


def quota_use(name: str, used: float, limit: float) -> dict[str, Any]:
    """The `quota` of an error, as the answer has it."""
    return {"name": name, "used": used, "limit": limit}


class InUseError(RefusedError):
    """Active jobs use the object to be deleted; `jobs` is their number."""

    code = "in_use"
    advice = "Wait for the jobs that use it, or cancel them."

    def __init__(self, message: str | None = None, *, jobs: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.jobs = jobs


class FencedOffError(InfluencerAIError):
    """Another attempt owns the job now."""

    code = "fenced_off"
    advice = "Nothing: the attempt lost its lease, and another one has the job."


class StoreError(InfluencerAIError):
    """The database cannot be used."""

    code = "store"
    advice = "Check that the database runs and has disk space. Running jobs continue, and are recorded when it is back."

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
    """The expected event did not happen in time."""

    code = "timed_out"
    advice = "The operation continues on the server: wait again, or longer."
