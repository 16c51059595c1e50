"""LoRA configs: made, changed, listed and deleted by their tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from influencerai.domain import LoraConfig
from influencerai.domain.lora_config_record import NULLABLE, LoraConfigQuery, LoraConfigRecord
from influencerai.domain.output_path import output_path
from influencerai.domain.page import Page
from influencerai.errors import InUseError, NotFoundError, RefusedError, ValidationError
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.answer import Answer, answer_once
from influencerai.service.base_models import BaseModelService
from influencerai.service.quotas import QuotaService
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey
from influencerai.training_plan import BucketPlan

_LONGEST_SHOWN = 100
"""Characters of a name that a request has made up."""
_DEFAULT_DELETED = "Deleted the default LoRA configuration. Consider setting a new default."


class LoraConfigService:
    """One tenant's configurations per call."""

    def __init__(self, store: Store, folders: TenantFolders, models: BaseModelService, quotas: QuotaService) -> None:
        self._store = store
        self._folders = folders
        self._models = models
        self._quotas = quotas

    async def create(
        self, tenant: str, config: LoraConfig, *, unknown: tuple[str, ...] = (), request: RequestKey | None = None
    ) -> Answer[LoraConfigRecord]:
        """A new configuration; as the default it takes the place of the one before.

        Raises:
            ValidationError: its output path leaves the root.
            ConflictError: the name is taken.
            QuotaError: the tenant has as many as it may have.
        """
        check_config(tenant, config, self._folders)
        about_model = await self._models.warnings(config.model_name)

        async def make(transaction: Transaction) -> Answer[LoraConfigRecord]:
            await self._quotas.check_new(transaction, tenant, "configs")
            record = await transaction.lora_configs.add(tenant, config)
            return Answer(value=record, warnings=(*unknown, *_warnings(config), *about_model))

        return await answer_once(self._store, tenant, request, LoraConfigRecord, make)

    async def list(self, tenant: str, query: LoraConfigQuery) -> Page[LoraConfigRecord]:
        """A slice of the tenant's configurations."""
        async with self._store.read() as transaction:
            return await transaction.lora_configs.page(tenant, query)

    async def get(self, tenant: str, id: str) -> LoraConfigRecord:
        """One configuration.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._store.read() as transaction:
            found = await transaction.lora_configs.get(tenant, id)
        if found is None:
            raise _not_found(id)
        return found

    async def update(self, tenant: str, id: str, changes: Mapping[str, Any]) -> Answer[LoraConfigRecord]:
        """Change the fields that `changes`, by wire name, names; `meta` is replaced whole, null clears a text.

        Raises:
            NotFoundError: there is no such configuration.
            ValidationError: a value cannot be used, or is null where there must be one.
            ConflictError: the new name is taken.
        """
        sent = LoraConfig.by_wire_name(changes)
        own = {name: value for name, value in sent.items() if name not in LoraConfig.server_fields}
        if bad := [name for name in LoraConfig.wire_names() if name not in NULLABLE and own.get(name, "") is None]:
            raise ValidationError(field_errors={name: ["Input should not be null"] for name in bad})

        def change(config: LoraConfig) -> LoraConfig:
            changed = LoraConfig.parse({**config.to_wire(), **own}, ignore_unknown=True)
            check_config(tenant, changed, self._folders)
            return changed

        async with self._store.write() as transaction:
            record = await transaction.lora_configs.edit(tenant, id, change)
        if record is None:
            raise _not_found(id)
        unknown = tuple(unknown_field_warnings(LoraConfig.unknown_fields(changes)))
        about_model = await self._models.warnings(record.model_name)
        return Answer(value=record, warnings=(*unknown, *_warnings(record.config), *about_model))

    async def delete(self, tenant: str, id: str) -> tuple[str, ...]:
        """Delete a configuration that no active job uses; returns what its user should know.

        Raises:
            NotFoundError: there is no such configuration.
            RefusedError: pending or running jobs use it.
        """
        async with self._store.write() as transaction:
            try:
                removed = await transaction.lora_configs.remove(tenant, id)
            except InUseError as error:
                raise RefusedError(f"Cannot delete configuration: {users(error.jobs)} using it") from error
        if removed is None:
            raise _not_found(id)
        return (_DEFAULT_DELETED,) if removed.is_default else ()


def users(count: int) -> str:
    """Such as "3 active jobs (pending/running) are", the same words for one, since clients look for them."""
    return f"{count} active jobs (pending/running) are"


def unknown_field_warnings(names: list[str]) -> list[str]:
    """Warnings about fields of a request that nothing reads."""
    return [f"Unknown field '{name[:_LONGEST_SHOWN]}' is ignored." for name in names]


def _not_found(id: str) -> NotFoundError:
    return NotFoundError.of("LoRA config", id)


def check_config(tenant: str, config: LoraConfig, folders: TenantFolders, *, prefix: str = "") -> None:
    """Refuse a configuration that no training could carry out, beyond what its model checks.

    Raises:
        ValidationError: names the field, after `prefix`.
    """
    BucketPlan(resolution=config.resolution, options=config.options)
    folders.resolve(tenant, output_path(config), field=f"{prefix}outputPath")


def _warnings(config: LoraConfig) -> list[str]:
    return [*config.warnings, *BucketPlan(resolution=config.resolution, options=config.options).warnings]
