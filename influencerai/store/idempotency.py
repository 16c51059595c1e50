"""Idempotency keys: an answer is kept beside what it made, and given again to whoever repeats the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.errors import ConflictError
from influencerai.store.dialect import insert_or_keep, now
from influencerai.store.schema import idempotency_keys

LIFETIME_MS = 24 * 3600 * 1000


@dataclass(frozen=True, kw_only=True)
class RequestKey:
    """A request that its sender may repeat: the key, where it was sent, and a hash of its body."""

    route: str
    """Method and path."""
    key: str
    body_sha256: str


class IdempotencyKeys:
    """Rows of `idempotency_keys`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def answer(self, tenant: str, request: RequestKey) -> Mapping[str, Any] | None:
        """The answer that the request got before, or None: then it is this transaction's to make and `keep` one.

        A request that is under way in another transaction is waited for.

        Raises:
            ConflictError: the key came with another body.
        """
        await self._forget_old()
        row = {
            "tenant_id": tenant,
            "route": request.route,
            "key": request.key,
            "body_sha256": request.body_sha256,
        }
        statement = insert_or_keep(self._connection, idempotency_keys).values(created_at=now(), **row)
        found = None
        while found is None:  # another request may forget the key after it was met
            if (await self._connection.execute(statement)).rowcount:
                return None
            mine = select(idempotency_keys).where(*self._mine(tenant, request))
            found = (await self._connection.execute(mine)).one_or_none()
        if found.body_sha256 != request.body_sha256:
            raise ConflictError(
                f"The Idempotency-Key '{request.key}' was used for another request",
                remedy="Use a new key for a new request.",
            )
        answer: Mapping[str, Any] = found.answer
        return answer

    async def has(self, tenant: str, request: RequestKey) -> bool:
        """Whether the request was answered within the keys' lifetime; nothing is written, and nobody waited for."""
        fresh = idempotency_keys.c.created_at >= now() - LIFETIME_MS
        mine = select(idempotency_keys.c.key).where(*self._mine(tenant, request), fresh)
        return (await self._connection.execute(mine)).first() is not None

    async def keep(self, tenant: str, request: RequestKey, answer: Mapping[str, Any]) -> None:
        """Keep the answer of this transaction's request."""
        statement = update(idempotency_keys).where(*self._mine(tenant, request))
        await self._connection.execute(statement.values(answer=dict(answer)))

    async def _forget_old(self) -> None:
        """Those that another request is forgetting are left to it, else the two could wait for each other."""
        key = tuple_(*idempotency_keys.primary_key)
        old = (
            select(*idempotency_keys.primary_key)
            .where(idempotency_keys.c.created_at < now() - LIFETIME_MS)
            .limit(100)
            .with_for_update(skip_locked=True)
        )
        await self._connection.execute(delete(idempotency_keys).where(key.in_(old)))

    @staticmethod
    def _mine(tenant: str, request: RequestKey) -> tuple[Any, ...]:
        keys = idempotency_keys.c
        return keys.tenant_id == tenant, keys.route == request.route, keys.key == request.key
