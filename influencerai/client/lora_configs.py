"""LoRA configs: training configurations, by name and with one default per tenant."""

from __future__ import annotations

from typing import Any, Literal

from influencerai.client.blocking import Blocking, blocking, listing
from influencerai.client.connection import Connection, segment
from influencerai.client.listing import AsyncListing
from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.lora_config_record import LoraConfigRecord
from influencerai.domain.page import SortOrder


class AsyncLoraConfigs:
    """The tenant's training configurations."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self, config: LoraConfig | None = None, /, *, idempotency_key: str | None = None, **fields: Any
    ) -> LoraConfigRecord:
        """A new configuration: `config`, or one of the fields of `LoraConfig`, such as `model_name="sd15"`.

        Given both, the fields replace those of `config`. As the default it takes the place of the one before.

        Raises:
            ValidationError: `field_errors` says what is wrong with which field.
            ConflictError: the name is taken, by the configuration `existing_id`.
        """
        given = {} if config is None else config.model_dump(mode="json", by_alias=True, exclude_unset=True)
        body = {**given, **LoraConfig.by_wire_name(fields)}
        return await self._connection.post(LoraConfigRecord, "/lora-configs", body, key=idempotency_key)

    async def get(self, id: str) -> LoraConfigRecord:
        """One configuration."""
        return await self._connection.get(LoraConfigRecord, f"/lora-configs/{segment(id)}")

    def list(
        self,
        *,
        is_default: bool | None = None,
        model_name: str | None = None,
        sort_by: Literal["createdAt", "updatedAt", "name"] | None = None,
        sort_order: SortOrder | None = None,
        page_size: int = 100,
    ) -> AsyncListing[LoraConfigRecord]:
        """All configurations, the newest first unless sorted otherwise."""
        return self._connection.list(
            LoraConfigRecord,
            "/lora-configs",
            page_size=page_size,
            isDefault=is_default,
            modelName=model_name,
            sortBy=sort_by,
            sortOrder=sort_order,
        )

    async def default(self) -> LoraConfigRecord | None:
        """The configuration that jobs take which name none; None where the tenant has none."""
        async for found in self.list(is_default=True, page_size=1):
            return found
        return None

    async def set_default(self, id: str) -> LoraConfigRecord:
        """Make this the default configuration."""
        return await self.update(id, is_default=True)

    async def update(self, id: str, /, **changes: Any) -> LoraConfigRecord:
        """Change the fields that are given; `meta` is replaced whole, None clears `description` and `output_path`."""
        path = f"/lora-configs/{segment(id)}"
        return await self._connection.patch(LoraConfigRecord, path, LoraConfig.by_wire_name(changes))

    async def delete(self, id: str) -> None:
        """Delete a configuration.

        Raises:
            RefusedError: pending or running jobs use it.
        """
        await self._connection.delete(f"/lora-configs/{segment(id)}")


class LoraConfigs(Blocking[AsyncLoraConfigs]):
    """The tenant's training configurations."""

    create = blocking(AsyncLoraConfigs.create)
    get = blocking(AsyncLoraConfigs.get)
    list = listing(AsyncLoraConfigs.list)
    default = blocking(AsyncLoraConfigs.default)
    set_default = blocking(AsyncLoraConfigs.set_default)
    update = blocking(AsyncLoraConfigs.update)
    delete = blocking(AsyncLoraConfigs.delete)
