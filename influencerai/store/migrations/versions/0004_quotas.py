"""Quotas of tenants, their measured disk usage, and device-time by month."""

from collections import Counter
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UNPAID = ("lost", "broken")


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_quotas")),
    )
    op.create_table(
        "disk_usage",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("datasets", sa.BigInteger(), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("loras", sa.BigInteger(), nullable=False),
        sa.Column("other", sa.BigInteger(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("measured_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_disk_usage")),
    )
    _count_device_time()


def _count_device_time() -> None:
    """Count what ended attempts have used, so that totals and this month's are right from the first day."""
    jobs = sa.table("jobs", sa.column("id"), sa.column("tenant_id"))
    attempts = sa.table(
        "attempts",
        *(sa.column(name) for name in ("job_id", "devices", "started_at", "ended_at", "outcome")),
    )
    counts = sa.table("counts", *(sa.column(name) for name in ("tenant_id", "noun", "first", "second", "count")))
    used: Counter[tuple[str, str]] = Counter()
    ended = (
        sa.select(jobs.c.tenant_id, attempts.c.devices, attempts.c.started_at, attempts.c.ended_at)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.ended_at.is_not(None), attempts.c.outcome.not_in(_UNPAID))
    )
    for tenant, devices, started, finished in op.get_bind().execute(ended):
        month = f"{datetime.fromtimestamp(finished / 1000, UTC):%Y-%m}"
        used[tenant, month] += round((finished - started) * devices)
    rows = [
        {"tenant_id": tenant, "noun": "used_ms", "first": month, "second": "", "count": count}
        for (tenant, month), count in sorted(used.items())
        if count > 0
    ]
    if rows:
        op.bulk_insert(counts, rows)
