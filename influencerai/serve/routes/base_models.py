"""/models and /presets: what a configuration can name, and where it can start."""

from __future__ import annotations

from fastapi import APIRouter, Response

from influencerai.domain.presets import PRESETS
from influencerai.serve.bodies import answer_document
from influencerai.serve.documents import BaseModels, Presets, errors
from influencerai.serve.principal import Reader
from influencerai.service import Service


def base_model_routes(service: Service) -> APIRouter:
    """Routes over `service.base_models`, and the presets."""
    router = APIRouter(tags=["LoRA configs"])

    @router.get("/models", response_model=BaseModels, responses=errors())
    async def list_models(tenant: Reader) -> Response:
        """List the base models that configurations can name, and whether this server has them."""
        return answer_document({"data": [entry.to_wire() for entry in await service.base_models.list()]})

    @router.get("/presets", response_model=Presets, responses=errors())
    async def list_presets(tenant: Reader) -> Response:
        """List the presets: values for a configuration's fields to start from."""
        return answer_document({"data": [preset.to_wire() for preset in PRESETS.values()]})

    return router
