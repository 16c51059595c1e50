"""Dataset: a registered folder of images and captions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from influencerai.domain.page import PageQuery, QueryBoolean
from influencerai.domain.relative_path import RelativePath
from influencerai.domain.wire import Document, Timestamp, WireModel

DatasetKind = Literal["lora-training", "fine-tuning"]
DatasetStatus = Literal["pending", "processing", "ready", "failed"]
SERVER_FIELDS = frozenset({"id", "tenantId", "status", "createdAt", "updatedAt", "warnings"})


class DatasetDraft(WireModel):
    """A dataset to be registered."""

    server_fields: ClassVar[frozenset[str]] = SERVER_FIELDS

    kind: DatasetKind = Field(default="lora-training", description="The purpose of the dataset.")
    path: RelativePath = Field(description="Folder with the images, relative to the root.")
    meta: Document = Field(default_factory=dict, description="Free; `triggerWord` goes into training.")


class DatasetChange(WireModel):
    """A change of a dataset."""

    server_fields: ClassVar[frozenset[str]] = SERVER_FIELDS | {"kind", "path"}

    meta: Document | None = Field(default=None, description="Replaces the whole meta.")


class DatasetStatusChange(WireModel):
    """A status set by hand."""

    server_fields: ClassVar[frozenset[str]] = (SERVER_FIELDS - {"status"}) | {"kind", "path", "meta"}

    status: DatasetStatus


class Dataset(WireModel):
    """A registered dataset."""

    id: str
    tenant_id: str
    kind: DatasetKind
    path: str
    status: DatasetStatus
    meta: dict[str, Any]
    created_at: Timestamp
    updated_at: Timestamp


class DatasetImage(WireModel):
    """One file of a dataset, as its folder was last looked at."""

    path: str = Field(description="Relative to the dataset's folder.")
    width: int | None = None
    height: int | None = None
    caption: str = ""
    caption_source: str = Field(description="Where the caption was found, or none.")
    usable: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    thumbnail: str = Field(description="Address of a small picture, relative to the server.")


class SkippedFile(WireModel):
    """A file of an upload that was left out."""

    name: str = Field(description="As it came.")
    reason: str
    remedy: str = Field(default="", description="What to do where the file was meant.")


class RenamedFile(WireModel):
    """A file of an upload that could not keep its name."""

    name: str = Field(description="As it came.")
    stored_as: str = Field(description="Its path in the dataset's folder; captions of the file were kept with it.")


class UploadAnswer(WireModel):
    """The changes that an upload made, and the dataset's status now."""

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]
    captions: int = Field(description="Captions among these.")
    skipped: tuple[SkippedFile, ...] = Field(default=(), description="Neither pictures nor captions, so left out.")
    renamed: tuple[RenamedFile, ...] = Field(default=(), description="Stored under another name than they came with.")
    warnings: tuple[str, ...] = Field(
        default=(),
        description="About files that were left out and may have been meant, such as unread captions.",
    )
    status: DatasetStatus


class ImageQuery(PageQuery):
    """Which images; in the order of their paths."""

    sort_order: Literal["asc", "desc"] = "asc"


class ReportQuery(WireModel):
    """How fresh a report should be."""

    refresh: QueryBoolean = Field(default=False, description="Look at the folder now.")


class CaptionChange(WireModel):
    """A caption set by hand; an empty one removes it."""

    caption: str = Field(max_length=10_000)


class DatasetQuery(PageQuery):
    """Filters and order of the list of datasets."""

    status: DatasetStatus | None = None
    kind: DatasetKind | None = None
    sort_by: Literal["createdAt", "updatedAt"] = "createdAt"
