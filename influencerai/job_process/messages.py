"""Messages between the worker and the job process, one line of JSON each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from influencerai.domain.event import Event
from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.training_result import TrainingFailure, TrainingResult
from influencerai.domain.training_spec import TrainingSpec
from influencerai.domain.wire import WireModel


class TrainingRequest(WireModel):
    """One attempt at one job: everything that the job process needs."""

    job_id: str = Field(min_length=1)
    root: Path = Field(description="The tenant's root, absolute; datasets and results are relative to it.")
    dataset: str = Field(description="The user's folder of images, relative to the root.")
    config: LoraConfig
    output_dir: str = Field(description="Folder that is reserved for the job, relative to the root.")
    run_dir: Path = Field(description="Absolute; resumable state, the job's images and the log of its attempts.")
    blobs_dir: Path = Field(description="Absolute; images by content, on the file system of `run_dir`.")
    spec: TrainingSpec | None = Field(default=None, description="None at the first attempt, then the frozen spec.")
    warnings: tuple[str, ...] = Field(default=(), description="Of the preparation that the frozen spec is from.")
    published: tuple[str, ...] = Field(default=(), description="Names of the files that earlier attempts told of.")
    backend: str = "diffusers"
    models_dirs: tuple[Path, ...]
    cache_dir: Path
    cache_max_bytes: int | None = None
    max_image_pixels: int = Field(ge=1)
    allow_downloads: bool = False
    as_path: bool = Field(default=False, description="Whether the model's name may be a path: not a stranger's.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(ge=1)
    visible_devices: str | None = Field(
        default=None, description="CUDA_VISIBLE_DEVICES of the process; None: as it is found."
    )
    world_size: int = Field(default=1, ge=1, description="Processes that train side by side on this machine.")
    rank: int = Field(default=0, ge=0, description="The place of this process among them; the first one speaks.")
    meeting_port: int | None = Field(default=None, description="Where they meet, on this machine alone.")
    micro_batch: int | None = Field(default=None, ge=1, description="Images per forward pass, where fewer fit.")
    gradient_checkpointing: bool | None = Field(default=None, description="As placed; None: as configured.")
    deterministic: bool = True

    @property
    def usable_threads(self) -> int:
        """As in `Settings`, where the worker has counted them."""
        return self.threads


class Prepared(WireModel):
    """The run is resolved and its images are copied; the process waits for `Go`."""

    type: Literal["prepared"] = "prepared"
    spec: TrainingSpec
    warnings: tuple[str, ...] = ()
    output_dir: str = Field(description="Relative to the root; the folder that is really used.")
    dataset_fingerprint: str


class Progress(WireModel):
    """An event of the training; paths in it are relative to the root."""

    type: Literal["progress"] = "progress"
    event: Event


class Completed(WireModel):
    """The last message: the run is complete, its files are in the output folder."""

    type: Literal["completed"] = "completed"
    result: TrainingResult


class Stopped(WireModel):
    """The last message: the process has stopped on request; a later attempt continues from its training state."""

    type: Literal["stopped"] = "stopped"
    failure: TrainingFailure


class Failed(WireModel):
    """The last message: an error. `retryable`: the user did not cause it, and another attempt may succeed."""

    type: Literal["failed"] = "failed"
    code: str
    message: str
    retryable: bool
    failure: TrainingFailure


class Go(WireModel):
    """Train this spec, which an earlier attempt may have frozen."""

    type: Literal["go"] = "go"
    spec: TrainingSpec


class Stop(WireModel):
    """Save the state at the next step boundary and end."""

    type: Literal["stop"] = "stop"
    is_cancel: bool = Field(default=False, description="The job is cancelled, so its last epochs are published.")


ProcessMessage = Annotated[Prepared | Progress | Completed | Stopped | Failed, Field(discriminator="type")]
WorkerMessage = Annotated[Go | Stop, Field(discriminator="type")]

PROCESS_MESSAGE: TypeAdapter[ProcessMessage] = TypeAdapter(ProcessMessage)
WORKER_MESSAGE: TypeAdapter[WorkerMessage] = TypeAdapter(WorkerMessage)


def to_line(message: WireModel) -> bytes:
    """The message as one line of JSON."""
    return message.model_dump_json(by_alias=True).encode() + b"\n"
