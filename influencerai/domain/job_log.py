"""Job log: events, figures and files of a job."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from influencerai.domain.page import QueryInteger
from influencerai.domain.wire import Timestamp, WireModel

JobEventType = Literal["status", "stage", "progress", "validation", "checkpoint", "sample", "warning", "cancel"]
"""Closed: a reader that knows these knows all."""


class JobEvent(WireModel):
    """One thing that happened to a job."""

    seq: int = Field(description="From 1, without gaps; the id of the event in a stream.")
    type: JobEventType
    data: dict[str, Any]
    created_at: Timestamp


class EventQuery(WireModel):
    """Which events."""

    after: QueryInteger = Field(default=0, ge=0, le=2**31 - 1, description="Only events of a higher number.")
    take: QueryInteger = Field(default=100, ge=1, le=1000, description="Events in the page.")


class JobMetric(WireModel):
    """Figures of one optimizer step."""

    step: int
    epoch: int
    loss: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    validation_loss: float | None = None


class MetricQuery(WireModel):
    """How many points of the curve."""

    points: QueryInteger = Field(default=500, ge=2, le=5000, description="About so many steps, evenly spaced.")


class JobArtifact(WireModel):
    """A file that a job has published."""

    name: str
    kind: Literal["lora", "sample"]
    path: str = Field(description="Relative to the root.")
    size: int = Field(description="Bytes.")
    sha256: str
    step: int
    epoch: int
    created_at: Timestamp
    url: str = Field(description="Where it is downloaded, relative to the server.")
    thumbnail: str | None = Field(default=None, description="Where a small picture of a sample is downloaded.")
