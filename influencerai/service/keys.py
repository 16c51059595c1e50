"""API keys: made, listed and revoked by the operator; found by the edge."""

from __future__ import annotations

from influencerai.errors import NotFoundError, ValidationError
from influencerai.store import Store
from influencerai.store.api_keys import ApiKey, KeyScope
from influencerai.tenant_folders import is_tenant


class KeyService:
    """Keys of all tenants: for the operator, never for a request."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, *, tenant: str | None, name: str = "") -> tuple[ApiKey, str]:
        """A key of a tenant, or without one of a worker; and its secret, which is shown this once.

        Raises:
            ValidationError: that cannot be a tenant's id.
        """
        if tenant is not None and not is_tenant(tenant):
            text = "Input should be 1 to 64 letters, digits and _-."
            raise ValidationError(field_errors={"tenant": [text]})
        scope: KeyScope = "worker" if tenant is None else "tenant"
        async with self._store.write() as transaction:
            return await transaction.api_keys.add(tenant=tenant, scope=scope, name=name[:100])

    async def list(self, *, tenant: str | None = None) -> list[ApiKey]:
        """Every key, of one tenant or of all."""
        async with self._store.read() as transaction:
            return await transaction.api_keys.all(tenant=tenant)

    async def revoke(self, id: str) -> ApiKey:
        """Make a key useless at once.

        Raises:
            NotFoundError: there is no such key.
        """
        async with self._store.write() as transaction:
            key = await transaction.api_keys.revoke(id)
        if key is None:
            raise NotFoundError.of("API key", id)
        return key

    async def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, unless it was revoked."""
        async with self._store.read() as transaction:
            return await transaction.api_keys.find(secret)
