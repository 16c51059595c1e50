"""Names, metadata and stage of jobs; codes and remedies of attempts."""

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


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for name, (length, _, _) in _COLUMNS.items():
        op.add_column("jobs", sa.Column(name, sa.String(length=length), nullable=True))
    op.add_column("jobs", sa.Column("metadata", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("stage", sa.String(length=32), nullable=True))
    for name, (_, document, path) in _COLUMNS.items():
        found = (
            f"json_extract({document}, '$.{'.'.join(path)}')" if is_sqlite else f"{document} #>> '{{{','.join(path)}}}'"
        )
        op.execute(f"UPDATE jobs SET {name} = {found}")
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
