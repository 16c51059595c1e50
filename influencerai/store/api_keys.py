"""API keys: credentials of tenants, workers, monitoring and operators. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import now
from influencerai.store.ids import new_id
from influencerai.store.schema import api_keys
from influencerai.store.times import to_datetime

KeyScope = Literal["full", "read", "worker", "metrics", "admin"]
"""Scopes of a key: everything of its tenant, the same read-only, reports on jobs, /metrics, /admin."""
KeyState = Literal["active", "expired", "revoked"]
PREFIX = "iak_"
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
"""32 random bytes in base64."""
_SHOWN = 12
"""Characters of a key that are kept to tell it from others."""


def is_secret(text: str) -> bool:
    """Whether `text` has the form of a key's secret."""
    return bool(_SECRET.fullmatch(text))


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key without its secret."""

    id: str
    tenant_id: str | None
    """None for keys of operators and monitoring, and of workers that name their tenant with each request."""
    scope: KeyScope
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    """The last use, to the minute."""
    revoked_at: datetime | None
    state: KeyState
    """On the database's clock, when the row was read."""


class ApiKeys:
    """Rows of `api_keys`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(
        self, *, tenant: str | None, scope: KeyScope, name: str, lifetime: timedelta | None = None
    ) -> tuple[ApiKey, str]:
        """A new key, and its secret, which cannot be read again; it expires after `lifetime`."""
        secret = PREFIX + secrets.token_urlsafe(32)
        values = {
            "id": new_id(),
            "tenant_id": tenant,
            "scope": scope,
            "name": name,
            "prefix": secret[:_SHOWN],
            "hash": hash_of(secret),
            "created_at": now(),
            "expires_at": None if lifetime is None else now() + round(lifetime.total_seconds() * 1000),
        }
        await self._connection.execute(insert(api_keys).values(values))
        [made] = await self._select(api_keys.c.id == values["id"])
        return made, secret

    async def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, in whatever state."""
        found = await self._select(api_keys.c.hash == hash_of(secret))
        return found[0] if found else None

    async def all(self, *, tenant: str | None = None) -> list[ApiKey]:
        """Every key, revoked and expired ones too, oldest first; of one tenant, or of all."""
        return await self._select(*([] if tenant is None else [api_keys.c.tenant_id == tenant]))

    async def named(self, text: str) -> list[ApiKey]:
        """The key with this id, or the keys whose secrets begin with `text`."""
        return await self._select(
            or_(api_keys.c.id == text, api_keys.c.prefix.startswith(text[:_SHOWN], autoescape=True))
        )

    async def revoke(self, id: str) -> ApiKey | None:
        """Revoke a key; None where there is none. A key that was revoked before stays as it is."""
        statement = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked_at.is_(None))
        await self._connection.execute(statement.values(revoked_at=now()))
        found = await self._select(api_keys.c.id == id)
        return found[0] if found else None

    async def note_use(self, ids: Iterable[str]) -> None:
        """Write that keys were used now."""
        for id in sorted(ids):
            await self._connection.execute(update(api_keys).where(api_keys.c.id == id).values(used_at=now()))

    async def _select(self, *conditions: Any) -> list[ApiKey]:
        is_expired = (api_keys.c.expires_at <= now()).label("is_expired")
        statement = select(api_keys, is_expired).where(*conditions).order_by(api_keys.c.id)
        return [_api_key(row) for row in await self._connection.execute(statement)]


def hash_of(secret: str) -> bytes:
    """SHA-256: a secret of 256 random bits needs no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _api_key(row: Row[Any]) -> ApiKey:
    times = {
        name: None if (value := getattr(row, name)) is None else to_datetime(value)
        for name in ("expires_at", "used_at", "revoked_at")
    }
    return ApiKey(
        id=row.id,
        tenant_id=row.tenant_id,
        scope=row.scope,
        name=row.name,
        prefix=row.prefix,
        created_at=to_datetime(row.created_at),
        state="revoked" if row.revoked_at is not None else "expired" if row.is_expired else "active",
        **times,
    )
