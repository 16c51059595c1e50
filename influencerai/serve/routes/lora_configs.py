"""/lora-configs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from influencerai.domain import LoraConfig
from influencerai.domain.lora_config_record import LoraConfigChange, LoraConfigQuery, LoraConfigRecord
from influencerai.serve.bodies import MaybeKey, SentBody, answer, answer_document, answer_page, strict_route
from influencerai.serve.documents import Deleted, LoraConfigPage, WarnedLoraConfig, created, errors, page
from influencerai.serve.principal import Owner, Reader
from influencerai.service import Service
from influencerai.service.lora_configs import unknown_field_warnings


def lora_config_routes(service: Service) -> APIRouter:
    """Routes over `service.lora_configs`."""
    max_bytes = service.settings.max_body_kib * 1024
    router = APIRouter(prefix="/lora-configs", tags=["LoRA configs"], route_class=strict_route(max_bytes))
    configs = service.lora_configs

    @router.post("", responses=created(WarnedLoraConfig) | errors(400, 409, 413), status_code=201)
    async def create_lora_config(tenant: Owner, config: LoraConfig, sent: SentBody, key: MaybeKey) -> Response:
        """Create a training configuration; its name is unique per tenant."""
        unknown = tuple(unknown_field_warnings(LoraConfig.unknown_fields(sent)))
        made = await configs.create(tenant, config, unknown=unknown, request=key)
        location = {"location": f"/lora-configs/{made.value.id}"}
        return answer_document(made.to_wire(), status=201, headers=location)

    @router.get("", responses=page(LoraConfigPage) | errors(400))
    async def list_lora_configs(tenant: Reader, query: Annotated[LoraConfigQuery, Query()]) -> Response:
        """List training configurations, filtered by base model or default."""
        return answer_page(await configs.list(tenant, query))

    @router.get("/{id}", response_model=LoraConfigRecord, responses=errors(404))
    async def get_lora_config(tenant: Reader, id: str) -> Response:
        """Get one training configuration."""
        return answer(await configs.get(tenant, id))

    @router.patch("/{id}", response_model=WarnedLoraConfig, responses=errors(400, 404, 409, 413))
    async def update_lora_config(tenant: Owner, id: str, change: LoraConfigChange, sent: SentBody) -> Response:
        """Change the fields that the body names; `meta` is replaced whole."""
        return answer_document((await configs.update(tenant, id, sent)).to_wire())

    @router.delete("/{id}", response_model=Deleted, responses=errors(400, 404))
    async def delete_lora_config(tenant: Owner, id: str) -> Response:
        """Delete a configuration that no active job uses."""
        return answer_document({"success": True, "warnings": list(await configs.delete(tenant, id))})

    return router
