"""API keys: made, listed and revoked by the operator, authenticated by the edge."""

from __future__ import annotations

import time
from datetime import timedelta

from influencerai.errors import AuthenticationError, ConflictError, NotFoundError, ValidationError
from influencerai.files.tenant_folders import is_tenant
from influencerai.store import Store
from influencerai.store.api_keys import PREFIX, ApiKey, KeyScope

_OF_A_TENANT = frozenset({"full", "read"})
_OF_NO_TENANT = frozenset({"metrics", "admin"})
_SHORTEST_PREFIX = len(PREFIX) + 4
_NOTED_SECONDS = 60.0
"""A key's last use is written once in so many seconds."""


class KeyService:
    """Keys of all tenants."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._used: set[str] = set()
        self._noted: dict[str, float] = {}

    async def create(
        self, *, tenant: str | None, scope: KeyScope | None = None, name: str = "", lifetime: timedelta | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which is shown this once.

        Args:
            tenant: whose it is; a worker's key without one names its tenant with each request.
            scope: by default `full` with a tenant, `worker` without.
            name: what to remember it by.
            lifetime: after which it expires; by default it does not.

        Raises:
            ValidationError: no tenant can have this id, or the scope needs a tenant or refuses one.
        """
        if tenant is not None and not is_tenant(tenant):
            text = "Input should be 1 to 64 letters, digits and _-."
            raise ValidationError(field_errors={"tenant": [text]})
        scope = scope or ("worker" if tenant is None else "full")
        if tenant is None and scope in _OF_A_TENANT:
            raise ValidationError(field_errors={"tenant": [f"A key with the scope '{scope}' needs a tenant"]})
        if tenant is not None and scope in _OF_NO_TENANT:
            raise ValidationError(field_errors={"tenant": [f"A key with the scope '{scope}' belongs to no tenant"]})
        if lifetime is not None and lifetime <= timedelta():
            raise ValidationError(field_errors={"lifetime": ["Input should be greater than 0"]})
        async with self._store.write() as transaction:
            return await transaction.api_keys.add(tenant=tenant, scope=scope, name=name[:100], lifetime=lifetime)

    async def list(self, *, tenant: str | None = None) -> list[ApiKey]:
        """Every key, of one tenant or of all."""
        async with self._store.read() as transaction:
            return await transaction.api_keys.all(tenant=tenant)

    async def revoke(self, named: str) -> ApiKey:
        """Revoke the key with this id, or the one key whose secret begins so.

        Raises:
            NotFoundError: there is no such key.
            ConflictError: several keys begin so.
        """
        text = named.removesuffix("...")
        async with self._store.write() as transaction:
            found = await transaction.api_keys.named(text)
            if not any(key.id == text for key in found) and len(text) < _SHORTEST_PREFIX:
                found = []
            if len(found) > 1:  # a revoked one needs no revoking
                found = [key for key in found if key.state != "revoked"] or found[:1]
            if not found:
                remedy = f"Name an id, or the first {_SHORTEST_PREFIX} characters or more of a key: see `keys list`."
                raise NotFoundError(f"API key {named} not found", remedy=remedy)
            if len(found) > 1:
                ids = ", ".join(key.id for key in found)
                raise ConflictError(f"{len(found)} keys begin with {text}: {ids}", remedy="Name one by its id.")
            revoked = await transaction.api_keys.revoke(found[0].id)
        assert revoked is not None
        return revoked

    async def authenticate(self, secret: str) -> ApiKey:
        """The active key with this secret; its use is noted.

        Raises:
            AuthenticationError: there is none, or it has expired or was revoked.
        """
        async with self._store.read() as transaction:
            key = await transaction.api_keys.find(secret)
        if key is None or key.state == "revoked":
            raise AuthenticationError("The API key is unknown or was revoked")
        if key.state == "expired":
            raise AuthenticationError(
                f"The API key {key.prefix}... expired on {key.expires_at:%Y-%m-%d %H:%M} UTC",
                remedy="Ask the operator for a new one (`influencerai keys create`).",
            )
        self._used.add(key.id)
        return key

    async def write_uses(self, *, at_once: bool = False) -> None:
        """Write the last use of keys, of each once a minute, or `at_once`.

        Raises:
            StoreError: the database does not answer; a later call writes them.
        """
        moment = time.monotonic()
        due = {id for id in self._used if at_once or moment - self._noted.get(id, -_NOTED_SECONDS) >= _NOTED_SECONDS}
        if not due:
            return
        async with self._store.write() as transaction:
            await transaction.api_keys.note_use(due)
        self._used -= due
        self._noted = {id: at for id, at in self._noted.items() if moment - at < _NOTED_SECONDS}
        self._noted |= dict.fromkeys(due, moment)
