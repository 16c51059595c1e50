"""/healthz, /readyz and /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from influencerai.serve.bodies import answer, answer_document
from influencerai.serve.documents import Health, Responses, errors
from influencerai.serve.metrics import Figures
from influencerai.serve.principal import MaybePrincipal
from influencerai.service import Service
from influencerai.service.health import Readiness

_METRICS: Responses = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."}
}


def health_routes(service: Service, figures: Figures) -> APIRouter:
    """Routes for those who run the server."""
    router = APIRouter(tags=["Operation"])
    is_open = service.settings.auth == "development"

    @router.get("/healthz", response_model=Health)
    async def get_health() -> Response:
        """Whether this process answers; it asks nothing else."""
        return answer_document({"status": "ok"})

    @router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready."}})
    async def get_readiness(principal: MaybePrincipal) -> Response:
        """Whether database, disk and runner are there; in production with a credential also how fast each answers."""
        found = await service.health.readiness()
        if principal is None and not is_open:
            found = Readiness(status=found.status)
        return answer(found, status=200 if found.status == "ready" else 503)

    @router.get("/metrics", response_class=Response, responses=_METRICS | errors())
    async def get_metrics(principal: MaybePrincipal) -> Response:
        """Figures for Prometheus; in production for credentials with the scope `metrics`, `admin` or `worker`."""
        if principal is not None:
            principal.require("metrics")
        text = figures.exposition(await service.health.figures(), open_streams=service.event_streams.open_streams)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return router
