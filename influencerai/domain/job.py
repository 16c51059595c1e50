"""Job: one request to train, its states and what may follow what."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, model_validator

from influencerai.domain.job_metadata import JobMetadata, MetadataFilter
from influencerai.domain.job_result import check_result
from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.page import PageQuery, QueryBoolean, QueryText, query_integer
from influencerai.domain.training_options import TrainingOptions
from influencerai.domain.wire import BOUNDED, Document, SchemaOf, Timestamp, WireModel

JobStatus = Literal["pending", "running", "completed", "failed"]
TERMINAL: frozenset[JobStatus] = frozenset({"completed", "failed"})
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    "pending": frozenset({"pending", "running", "completed", "failed"}),
    "running": frozenset({"pending", "running", "completed", "failed"}),
    "completed": frozenset(),
    "failed": frozenset(),
}
"""`running` to `pending` is for a lost worker only. Nothing leaves a terminal state."""
SERVER_FIELDS = frozenset(
    {
        "id",
        "tenantId",
        "status",
        "result",
        "costTok",
        "startedAt",
        "finishedAt",
        "createdAt",
        "updatedAt",
        "stage",
        "loraConfigName",
        "modelName",
        "datasetPath",
        "waiting",
        "queuePosition",
        "estimatedStart",
        "cancelRequested",
        "retryOf",
        "attempts",
        "training",
        "warnings",
    }
)


_ANYBODYS = frozenset({"name", "description", "meta"})
"""Fields of a configuration whose names a payload may have for something else."""
METADATA = "Texts of your own by name, such as an order number: at most 20, listed jobs can be filtered by them."


class JobPayload(WireModel):
    """The configuration and the dataset of a job."""

    dataset_id: str = Field(min_length=1, max_length=64, description="Dataset to train on.")
    lora_config_id: str | None = Field(
        default=None, min_length=1, max_length=64, description="Configuration; default: the tenant's default one."
    )
    lora_config: LoraConfig | None = Field(
        default=None, description="A configuration for this job alone, instead of a stored one; nothing is stored."
    )
    priority: StrictInt = Field(default=5, ge=1, le=10, description="Within the tenant: 10 goes first.")

    @model_validator(mode="after")
    def _check_one_config(self) -> Self:
        if self.lora_config is not None and self.lora_config_id is not None:
            raise ValueError("Name a configuration by loraConfigId or send one as loraConfig, not both")
        return self

    @classmethod
    def refusal_of(cls, name: str) -> str | None:
        """As of any field; a field or an option of a configuration belongs in `loraConfig`."""
        if (field := LoraConfig.by_any_name(name)) is not None and field not in _ANYBODYS:
            return f"The field '{field}' belongs in loraConfig: loraConfig.{field}"
        if (option := TrainingOptions.by_any_name(name)) is not None:
            return f"The option '{option}' belongs in loraConfig: loraConfig.meta.{option}"
        return super().refusal_of(name)


class JobDraft(WireModel):
    """A job to be submitted."""

    server_fields: ClassVar[frozenset[str]] = SERVER_FIELDS

    type: Literal["lora-training"] = Field(description="Kind of job.")
    payload: Annotated[JobPayload, BOUNDED]
    metadata: JobMetadata = Field(default_factory=dict, description=METADATA)

    @classmethod
    def refusal_of(cls, name: str) -> str | None:
        """As of any field; a field of `payload` that stands beside it is an error too."""
        if (field := JobPayload.by_any_name(name)) is not None:
            return f"The field '{field}' belongs in payload: payload.{field}"
        return super().refusal_of(name)


class SubmitQuery(WireModel):
    """How a job is submitted."""

    dry_run: QueryBoolean = Field(default=False, description="Report what the job would do; nothing is stored.")


class JobChange(WireModel):
    """A report of a worker on a job, or new metadata from its owner."""

    server_fields: ClassVar[frozenset[str]] = SERVER_FIELDS - {"status", "result", "costTok"} | {"type", "payload"}

    status: JobStatus | None = Field(default=None, description="The job's next state.")
    result: Annotated[Document, AfterValidator(check_result)] | None = Field(
        default=None,
        description="Replaces the whole result. The fields that the results of jobs have are type-checked.",
    )
    cost_tok: StrictInt | None = Field(default=None, ge=0, le=2**63 - 1, description="Cost in tokens.")
    metadata: JobMetadata | None = Field(default=None, description="Replaces all of the job's metadata.")

    @property
    def is_report(self) -> bool:
        """Whether it says how the training goes, which only the worker that holds the job may say."""
        return bool(self.model_fields_set & {"status", "result", "cost_tok"})


class Job(WireModel):
    """A job as its tenant sees it."""

    id: str
    tenant_id: str
    type: str
    status: JobStatus
    payload: Annotated[dict[str, Any], SchemaOf(JobPayload)]
    metadata: dict[str, str] = Field(default_factory=dict, description=METADATA)
    result: dict[str, Any] | None = None
    cost_tok: int | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    created_at: Timestamp
    updated_at: Timestamp
    lora_config_name: str | None = Field(default=None, description="Name of the configuration that it trains.")
    model_name: str | None = Field(default=None, description="Base model that it trains on.")
    dataset_path: str | None = Field(default=None, description="Folder of its dataset.")
    stage: str | None = Field(
        default=None, description="What a running job is doing: starting, checking, loading, training, exporting, ..."
    )
    waiting: str | None = Field(default=None, description="Why a pending job is not running yet.")
    queue_position: int | None = Field(
        default=None, description="On a cluster: place of a pending job among the tenant's own; 1 is the next."
    )
    estimated_start: Timestamp | None = Field(
        default=None, description="On a cluster: when a pending job starts, if others take as long as jobs did lately."
    )
    cancel_requested: bool = False
    retry_of: str | None = Field(default=None, description="The job whose training this one goes on with.")


class Attempt(WireModel):
    """One try at training a job."""

    number: int = Field(description="The job's fence while this attempt held it; rises with every attempt.")
    node: str
    started_at: Timestamp
    begun_at: Timestamp | None = Field(default=None, description="On a cluster: when its node began with it.")
    ended_at: Timestamp | None = None
    devices: float = Field(default=1, description="Devices that it held, in parts of a GPU too.")
    outcome: str | None = Field(
        default=None, description="completed, failed, cancelled, lost, broken or released; null while it runs."
    )
    error: str | None = None
    code: str | None = Field(default=None, description="Code of the error.")
    remedy: str | None = Field(default=None, description="What to do about the error.")


class JobTraining(WireModel):
    """The training of a job, frozen when the job was made."""

    config: Annotated[dict[str, Any], SchemaOf(LoraConfig)] = Field(
        description="The configuration, with the dataset's trigger word."
    )
    options: Annotated[dict[str, Any], SchemaOf(TrainingOptions)] = Field(
        description="The options in the configuration's meta, with defaults for absent keys."
    )
    dataset: dict[str, Any] = Field(description="Path and fingerprint of the dataset when the job was made.")
    seed: int
    output_dir: str = Field(description="Folder of the job's files.")


class JobDetail(Job):
    """A job with what it trains and who has tried."""

    training: JobTraining | None = None
    attempts: tuple[Attempt, ...] = ()


class JobSeries(WireModel):
    """Jobs per span of time."""

    window: Literal["day", "week", "month"]
    data: tuple[JobCount, ...]


class JobCount(WireModel):
    """Jobs of one span: ended ones by their end, others by their creation."""

    date: str = Field(description="Last day of the span, in UTC.")
    completed: int = 0
    failed: int = 0
    pending: int = 0
    running: int = 0


class SeriesQuery(WireModel):
    """Which spans."""

    window: Literal["day", "week", "month"] = Field(default="week", description="Width of a span.")
    buckets: Annotated[int, Field(ge=1, le=366), BeforeValidator(query_integer)] | None = Field(
        default=None, description="How many; default: 30 days, 12 weeks or 12 months."
    )


class JobQuery(PageQuery):
    """Filters and order of the list of jobs."""

    status: Literal["pending", "running", "completed", "failed", "cancelled"] | None = None
    type: QueryText | None = Field(default=None, max_length=100, description="Only jobs of this type.")
    dataset_id: QueryText | None = Field(default=None, max_length=64, description="Only jobs on this dataset.")
    lora_config_id: QueryText | None = Field(
        default=None, max_length=64, description="Only jobs of this stored configuration."
    )
    metadata: tuple[MetadataFilter, ...] = Field(
        default=(),
        max_length=8,
        description="Only jobs whose metadata has this `key:value`, such as `orderId:A-17`; repeated: all of them.",
    )
    sort_by: Literal["createdAt", "updatedAt"] = "createdAt"
