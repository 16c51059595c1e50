"""Names, metadata and stage of jobs; codes and remedies of attempts."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = {
    "dataset_id": (64, "payload", ("datasetId",)),
    "config_id": (64, "payload", ("loraConfigId",)),
    "dataset_path": (255, "snapshot", ("dataset", "path")),
    "config_name": (100, "snapshot", ("config", "name")),
    "model_name": (255, "snapshot", ("config", "modelName")),
}
"""By name: length, and where in which document existing jobs have it."""
_BATCH = 500


def upgrade() -> None:
    for name, (length, _, _) in _COLUMNS.items():
        op.add_column("jobs", sa.Column(name, sa.String(length=length), nullable=True))
    op.add_column("jobs", sa.Column("metadata", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("stage", sa.String(length=32), nullable=True))
    _fill()
    op.create_index("ix_jobs_dataset", "jobs", ["tenant_id", "dataset_id", "created_at", "id"])
    op.create_index("ix_jobs_config", "jobs", ["tenant_id", "config_id", "created_at", "id"])
    op.create_table(
        "job_metadata",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_metadata_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "key", name=op.f("pk_job_metadata")),
    )
    op.create_index("ix_job_metadata_value", "job_metadata", ["tenant_id", "key", "value"])
    op.add_column("attempts", sa.Column("code", sa.String(length=32), nullable=True))
    op.add_column("attempts", sa.Column("remedy", sa.Text(), nullable=True))


def _fill() -> None:
    """Names and ids of existing jobs, read in Python: Postgres takes no value out of a document that holds a NUL."""
    connection = op.get_bind()
    columns = [sa.column(name, sa.String()) for name in _COLUMNS]
    jobs = sa.table("jobs", sa.column("id", sa.String()), sa.column("payload"), sa.column("snapshot"), *columns)
    texts = [sa.cast(jobs.c[name], sa.Text()).label(name) for name in ("payload", "snapshot")]
    change = sa.update(jobs).where(jobs.c.id == sa.bindparam("job"))
    change = change.values({name: sa.bindparam(f"new_{name}") for name in _COLUMNS})
    last = ""
    while rows := connection.execute(
        sa.select(jobs.c.id, *texts).where(jobs.c.id > last).order_by(jobs.c.id).limit(_BATCH)
    ).all():
        last = rows[-1].id
        connection.execute(change, [{"job": row.id, **_found(row)} for row in rows])


def _found(row: sa.Row[Any]) -> dict[str, str | None]:
    documents = {"payload": json.loads(row.payload or "null"), "snapshot": json.loads(row.snapshot or "null")}
    found: dict[str, str | None] = {}
    for name, (length, document, path) in _COLUMNS.items():
        value: Any = documents[document]
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        is_text = isinstance(value, str) and "\0" not in value
        found[f"new_{name}"] = value[:length] if is_text else None
    return found
