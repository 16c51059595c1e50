"""Documents of answers beside the nouns: envelopes, errors and headers."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from influencerai.domain.base_model_entry import BaseModelEntry
from influencerai.domain.dataset import Dataset, DatasetImage
from influencerai.domain.job import Job
from influencerai.domain.job_log import JobArtifact, JobEvent, JobMetric
from influencerai.domain.lora_config_record import LoraConfigRecord
from influencerai.domain.presets import Preset
from influencerai.domain.usage import Usage
from influencerai.domain.wire import WireModel
from influencerai.serve.errors import ErrorBody

Item = TypeVar("Item")
Responses = dict[int | str, dict[str, Any]]
_INTEGER = {"schema": {"type": "integer"}}
_PAGE_HEADERS = {
    "X-Total-Count": {"description": "Items in the whole list.", **_INTEGER},
    "X-Take": {"description": "Items asked for.", **_INTEGER},
    "X-Skip": {"description": "Items before the page.", **_INTEGER},
}
_DESCRIPTIONS = {
    400: "Something in the request cannot be used, or cannot be done now.",
    401: "The request does not say who sends it, or cannot prove it.",
    403: "The credential does not allow this.",
    404: "There is no such thing, or it belongs to another tenant.",
    405: "The route has no such method.",
    409: "The request contradicts what is there.",
    413: "The body is too large.",
    416: "The range is not in the file.",
    429: "Too many requests, or too many active jobs.",
    500: "An unexpected error.",
    503: "The database does not answer.",
}
ERROR_NAMES = {
    "400": "BadRequest",
    "401": "Unauthorized",
    "403": "Forbidden",
    "404": "NotFound",
    "405": "MethodNotAllowed",
    "409": "Conflict",
    "413": "TooLarge",
    "416": "RangeNotSatisfiable",
    "429": "TooManyRequests",
    "500": "UnexpectedError",
    "503": "Unavailable",
}
"""Names of the errors in the document, each of which is defined once."""


THUMBNAIL: Responses = {
    200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}, "description": "WebP."}
}


class Warned(WireModel):
    """The warnings of a change, beside its noun."""

    warnings: list[str] = Field(description="What was ignored, or is probably not meant.")


class WarnedDataset(Dataset, Warned):
    """A dataset, and what its user should know."""


WarnedLoraConfig = create_model(  # type: ignore[call-overload]
    "WarnedLoraConfig",
    __base__=Warned,
    __doc__="A configuration, and what its user should know.",
    **{name: (field.annotation, field) for name, field in LoraConfigRecord.model_fields.items()},
)
"""Not by inheritance: `warnings` is a property of the configuration itself."""


class WarnedJob(Job, Warned):
    """A job, and what its user should know."""


class WarnedUsage(Usage, Warned):
    """Usage after a change of quotas, and what was ignored."""


class Items(BaseModel, Generic[Item]):
    """A whole list."""

    data: list[Item]


class ItemPage(Items[Item], Generic[Item]):
    """A slice of a list."""

    total: int
    take: int
    skip: int


class LoraConfigPage(ItemPage[LoraConfigRecord]):
    """A slice of the configurations."""


class JobPage(ItemPage[Job]):
    """A slice of the jobs."""


class ImagePage(ItemPage[DatasetImage]):
    """A slice of a dataset's images."""


class EventPage(WireModel):
    """Events of a job, and the number of its last one."""

    data: list[JobEvent]
    last_seq: int


class Metrics(Items[JobMetric]):
    """The curve of a job."""


class Artifacts(Items[JobArtifact]):
    """Files of a job."""


class BaseModels(Items[BaseModelEntry]):
    """Base models that configurations can name."""


class Presets(Items[Preset]):
    """Presets of configurations."""


class Health(BaseModel):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Deleted(BaseModel):
    """It is gone."""

    success: Literal[True] = True
    warnings: list[str] = []


def errors(*statuses: int) -> Responses:
    """The documents of errors, and of those that every route may answer."""
    return {status: _error(status) for status in sorted({*statuses, 401, 403, 405, 429, 500, 503})}


def created(model: type[BaseModel]) -> Responses:
    """The document of 201 with its Location."""
    header = {"description": "Where the new thing is.", "schema": {"type": "string"}}
    return {201: {"model": model, "description": "Made.", "headers": {"Location": header}}}


def page(model: Any) -> Responses:
    """The document of a slice of a list with its three headers."""
    return {200: {"model": model, "description": "A slice of the list.", "headers": _PAGE_HEADERS}}


def _error(status: int) -> dict[str, Any]:
    if status == 500:  # which every route has: it defines the schema
        return {"model": ErrorBody, "description": _DESCRIPTIONS[status]}
    # By reference, since FastAPI builds a validator for each model of each route.
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}}
    return {"description": _DESCRIPTIONS[status], "content": content}
