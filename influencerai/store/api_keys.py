"""API keys: who may come in. Only their hashes are kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import now
from influencerai.store.ids import new_id
from influencerai.store.schema import api_keys
from influencerai.store.times import to_datetime

KeyScope = Literal["tenant", "worker"]
PREFIX = "iak_"
_SHOWN = 12
"""Characters of a key that are kept to tell it from others."""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key without its secret."""

    id: str
    tenant_id: str | None
    """None for a worker's key, which names its tenant with each request."""
    scope: KeyScope
    name: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None


class ApiKeys:
    """Rows of `api_keys`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, *, tenant: str | None, scope: KeyScope, name: str) -> tuple[ApiKey, str]:
        """A new key, and its secret, which is never to be had again."""
        secret = PREFIX + secrets.token_urlsafe(32)
        values = {
            "id": new_id(),
            "tenant_id": tenant,
            "scope": scope,
            "name": name,
            "prefix": secret[:_SHOWN],
            "hash": hash_of(secret),
            "created_at": now(),
        }
        row = (await self._connection.execute(insert(api_keys).values(values).returning(api_keys))).one()
        return _api_key(row), secret

    async def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, unless it was revoked."""
        statement = select(api_keys).where(api_keys.c.hash == hash_of(secret), api_keys.c.revoked_at.is_(None))
        row = (await self._connection.execute(statement)).one_or_none()
        return None if row is None else _api_key(row)

    async def all(self, *, tenant: str | None = None) -> list[ApiKey]:
        """Every key, revoked ones too, oldest first; of one tenant, or of all."""
        statement = select(api_keys).order_by(api_keys.c.id)
        if tenant is not None:
            statement = statement.where(api_keys.c.tenant_id == tenant)
        return [_api_key(row) for row in await self._connection.execute(statement)]

    async def revoke(self, id: str) -> ApiKey | None:
        """Make a key useless; None where there is none. A key that was revoked before stays as it is."""
        statement = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked_at.is_(None))
        await self._connection.execute(statement.values(revoked_at=now()))
        row = (await self._connection.execute(select(api_keys).where(api_keys.c.id == id))).one_or_none()
        return None if row is None else _api_key(row)


def hash_of(secret: str) -> bytes:
    """SHA-256: a secret of 256 random bits needs no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant_id=row.tenant_id,
        scope=row.scope,
        name=row.name,
        prefix=row.prefix,
        created_at=to_datetime(row.created_at),
        revoked_at=None if row.revoked_at is None else to_datetime(row.revoked_at),
    )
