"""The tables. Times are milliseconds since 1970, UTC; ids are text, sortable by creation."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from influencerai.store.dialect import sorted_text

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Document = JSON(none_as_null=True)
"""Any JSON value, kept as it was sent (Postgres' jsonb would reorder keys and refuse NUL); None is NULL."""


def _times() -> tuple[Column[int], Column[int]]:
    return Column("created_at", BigInteger, nullable=False), Column("updated_at", BigInteger, nullable=False)


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
)
"""A row to lock where a decision is about all that a tenant has."""

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("path", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("meta", Document, nullable=False),
    Column("report", Document),
    *_times(),
    CheckConstraint("status IN ('pending', 'processing', 'ready', 'failed')", name="status"),
    Index("ix_datasets_created", "tenant_id", "created_at", "id"),
    Index("ix_datasets_updated", "tenant_id", "updated_at", "id"),
)

lora_configs = Table(
    "lora_configs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("name", sorted_text(100), nullable=False),
    Column("model_name", String(255), nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("document", Document, nullable=False),  # the LoraConfig as it was validated
    *_times(),
    UniqueConstraint("tenant_id", "name"),
    Index("ix_lora_configs_created", "tenant_id", "created_at", "id"),
    Index("ix_lora_configs_updated", "tenant_id", "updated_at", "id"),
    # One default per tenant, whoever writes.
    Index("uq_lora_configs_default", "tenant_id", unique=True, **_where("is_default")),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("type", String(100), nullable=False),
    Column("status", String(16), nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("payload", Document, nullable=False),
    Column("result", Document),
    Column("cost_tok", BigInteger),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    *_times(),
    # What it trains, frozen when it was made; the plan is added by the first claim.
    Column("snapshot", Document, nullable=False),
    Column("plan", Document),
    Column("output_dir", String(512), nullable=False),
    Column("retry_of", String(64)),
    Column("error_code", String(32)),
    # What it was made of, for lists and their filters; the dataset and the configuration may be gone.
    Column("dataset_id", String(64)),
    Column("config_id", String(64)),
    Column("dataset_path", String(255)),
    Column("config_name", String(100)),
    Column("model_name", String(255)),
    Column("metadata", Document),
    Column("stage", String(32)),  # of a running job
    # Set while the job is active: the database then refuses to delete what it uses.
    Column("active_dataset_id", ForeignKey("datasets.id", ondelete="RESTRICT")),
    Column("active_config_id", ForeignKey("lora_configs.id", ondelete="RESTRICT")),
    # Whose turn it is.
    Column("priority", Integer, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("waiting", Text),  # why it is not running, for people
    Column("queue_position", Integer),
    Column("estimated_start", BigInteger),
    Column("needs", Text),  # of a node, as JSON, by the cluster's planner; NULL until it has looked
    Column("cancel_requested_at", BigInteger),
    Column("recalled_at", BigInteger),  # when its attempt was asked to give it back
    # Who trains it. The fence rises with every claim; a writer with an older one is fenced off.
    Column("owner", String(16)),
    Column("fence", Integer, nullable=False),
    Column("lease_token", String(64)),
    Column("lease_expires_at", BigInteger),
    Column("lost_attempts", Integer, nullable=False),
    Column("broken_attempts", Integer, nullable=False),
    Column("last_seq", Integer, nullable=False),
    CheckConstraint("status IN ('pending', 'running', 'completed', 'failed')", name="status"),
    CheckConstraint("cost_tok >= 0", name="cost"),
    CheckConstraint("owner IN ('ours', 'external')", name="owner"),
    Index("ix_jobs_created", "tenant_id", "created_at", "id"),
    Index("ix_jobs_updated", "tenant_id", "updated_at", "id"),
    Index("ix_jobs_status", "tenant_id", "status", "created_at", "id"),
    Index("ix_jobs_finished", "tenant_id", "finished_at"),
    Index("ix_jobs_dataset", "tenant_id", "dataset_id", "created_at", "id"),
    Index("ix_jobs_config", "tenant_id", "config_id", "created_at", "id"),
    # Only active jobs are in these, so that they stay small.
    Index("ix_jobs_running", "lease_expires_at", **_where("status = 'running'")),
    Index("ix_jobs_active_dataset", "active_dataset_id", **_where("active_dataset_id IS NOT NULL")),
    Index("ix_jobs_active_config", "active_config_id", **_where("active_config_id IS NOT NULL")),
)

Index("ix_jobs_unplanned", jobs.c.created_at, jobs.c.id, **_where("status = 'pending' AND needs IS NULL"))
Index(
    "ix_jobs_pending",
    jobs.c.tenant_id,
    jobs.c.priority.desc(),
    jobs.c.created_at,
    jobs.c.id,
    **_where("status = 'pending'"),
)

job_metadata = Table(
    "job_metadata",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(40), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("value", String(500), nullable=False),
    Index("ix_job_metadata_value", "tenant_id", "key", "value"),
)
"""The metadata of jobs once more, to find jobs by it."""

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("fence", Integer, primary_key=True),
    Column("node", String(255), nullable=False),
    Column("devices", Float(53), nullable=False),  # held, in parts of a GPU too; a training on the CPU holds one
    Column("charged", BigInteger, nullable=False),  # device-milliseconds that its tenant has paid for it
    Column("held", Text),  # as JSON, what it has of the cluster's node
    Column("tok_per_second", Float(53), nullable=False),  # what its job pays for a second of a device
    Column("started_at", BigInteger, nullable=False),
    Column("begun_at", BigInteger),  # when its node has begun with it
    Column("ended_at", BigInteger),
    Column("outcome", String(16)),
    Column("error", Text),
    Column("code", String(32)),  # of the error
    Column("remedy", Text),
    CheckConstraint("outcome IN ('completed', 'failed', 'cancelled', 'lost', 'broken', 'released')", name="outcome"),
    Index("ix_attempts_active", "job_id", **_where("ended_at IS NULL")),
    Index("ix_attempts_ended", "ended_at"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("type", String(32), nullable=False),
    Column("data", Document, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("loss", Float(53)),
    Column("learning_rate", Float(53)),
    Column("images_per_second", Float(53)),
    Column("validation_loss", Float(53)),
)
"""Figures by optimizer step: a resumed run writes over what its predecessor had trained after the last state."""

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("path", String(768), nullable=False),  # relative to the tenant's root
    Column("step", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

outputs = Table(
    "outputs",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("path", String(512), primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
)
"""Reserved output folders: two jobs of a tenant never write to one."""

counts = Table(
    "counts",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("noun", String(16), primary_key=True),
    Column("first", String(255), primary_key=True),
    Column("second", String(255), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Index("ix_counts_noun", "noun", "first"),
)
"""Rows per tenant, noun and the two things that its list is filtered by, so that totals cost the same at any size."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("route", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("answer", Document),
    *_times()[:1],
    Index("ix_idempotency_keys_created", "created_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("node", String(255), nullable=False),
    Column("job_id", String(64)),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)
"""Workers that say they are there; a job's lease alone decides who trains it."""

nodes = Table(
    "nodes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("facts", Document, nullable=False),
    Column("problem", Text),  # why nothing is trained there, for people
    Column("is_draining", Boolean, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("ix_nodes_seen", "seen_at"),
)
"""The cluster's machines as the dispatchers see them."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", String(64)),
    Column("scope", String(16), nullable=False),
    Column("name", String(100), nullable=False),
    Column("prefix", String(16), nullable=False),  # shown, to tell keys apart
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),  # about when; written at most once a minute
    CheckConstraint("scope IN ('full', 'read', 'worker', 'metrics', 'admin')", name="scope"),
)

request_counts = Table(
    "request_counts",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
)
"""Requests of the running minute; a crash may lose them."""

quotas = Table(
    "quotas",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("value", Float(53)),
)
"""Limits of single tenants, which win over the settings'; NULL is no limit."""

disk_usage = Table(
    "disk_usage",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("datasets", BigInteger, nullable=False),
    Column("runs", BigInteger, nullable=False),
    Column("loras", BigInteger, nullable=False),
    Column("other", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False),  # by uploads since
    Column("measured_at", BigInteger, nullable=False),
)
"""Bytes of each tenant's files, as last measured."""

reservations = Table(
    "reservations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
"""Bytes that uploads under way may write; one that its server does not renew expires."""
