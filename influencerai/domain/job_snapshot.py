"""Job snapshot: the configuration and the dataset that a job was submitted with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.wire import WireModel


class DatasetReference(WireModel):
    """A dataset as it was when a job was submitted; it may be changed or deleted afterwards."""

    id: str
    path: str = Field(description="Its folder, relative to the tenant's root.")
    fingerprint: str | None = Field(
        default=None,
        description="SHA-256 over paths and hashes of the images when they were last inspected; null: never.",
    )


class JobSnapshot(WireModel):
    """Frozen with the job: later changes of the stored configuration or of the dataset do not change the job."""

    config: LoraConfig = Field(description="With the dataset's trigger word, unless it has its own.")
    dataset: DatasetReference

    def to_wire(self) -> dict[str, Any]:
        """The JSON form, as the database has it: options and seed are written out for its readers."""
        options = self.config.options.to_wire()
        return {
            "config": self.config.to_wire(),
            "options": options,
            "dataset": self.dataset.to_wire(),
            "seed": options["seed"],
        }


def first_progress(document: Mapping[str, Any]) -> dict[str, Any]:
    """The progress that a running job shows until its worker reports; `document` is the snapshot as it is stored."""
    return {"currentEpoch": 0, "totalEpochs": document["config"]["epochs"]}
