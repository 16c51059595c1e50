"""Scopes, expiry and last use of API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SCOPES = "scope IN ('full', 'read', 'worker', 'metrics', 'admin')"


def _table(*checks: sa.CheckConstraint) -> sa.Table:
    """The table as it is at this point: SQLite copies it, and does not show its checks."""
    return sa.Table(
        "api_keys",
        sa.MetaData(),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=True),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        *checks,
    )


def upgrade() -> None:
    old = _table(sa.CheckConstraint("scope IN ('tenant', 'worker')", name="ck_api_keys_scope"))
    with op.batch_alter_table("api_keys", copy_from=old) as table:
        table.drop_constraint(op.f("ck_api_keys_scope"), type_="check")
    op.execute("UPDATE api_keys SET scope = 'full' WHERE scope = 'tenant'")
    with op.batch_alter_table("api_keys", copy_from=_table()) as table:
        table.add_column(sa.Column("expires_at", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("used_at", sa.BigInteger(), nullable=True))
        table.create_check_constraint(op.f("ck_api_keys_scope"), _SCOPES)
