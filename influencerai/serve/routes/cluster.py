"""/cluster."""

from __future__ import annotations

from fastapi import APIRouter, Response

from influencerai.domain.cluster import Cluster
from influencerai.serve.bodies import answer
from influencerai.serve.documents import errors
from influencerai.serve.principal import Reader
from influencerai.service import Service


def cluster_routes(service: Service) -> APIRouter:
    """The route over `service.cluster`."""
    router = APIRouter(tags=["Operation"])

    @router.get("/cluster", response_model=Cluster, responses=errors())
    async def get_cluster(tenant: Reader) -> Response:
        """List the machines that train, what is free on them, and which of your jobs run where."""
        return answer(await service.cluster.show(tenant))

    return router
