"""The app: routes over a service, behind the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from influencerai import __version__
from influencerai.serve.authentication import Authentication
from influencerai.serve.cors import Cors
from influencerai.serve.entrance import Entrance
from influencerai.serve.errors import UnexpectedErrors, add_error_handlers
from influencerai.serve.gate import Gate
from influencerai.serve.heads import HeadRequests
from influencerai.serve.metrics import Figures
from influencerai.serve.observation import REQUEST_ID_HEADER, Observation
from influencerai.serve.openapi import DOCUMENT_PATH, add_page, describe, operation_id
from influencerai.serve.routes.base_models import base_model_routes
from influencerai.serve.routes.cluster import cluster_routes
from influencerai.serve.routes.dataset_images import dataset_image_routes
from influencerai.serve.routes.datasets import dataset_routes
from influencerai.serve.routes.health import health_routes
from influencerai.serve.routes.job_log import job_log_routes
from influencerai.serve.routes.jobs import job_routes
from influencerai.serve.routes.lora_configs import lora_config_routes
from influencerai.serve.routes.usage import usage_routes
from influencerai.service import Service

_DESCRIPTION = "Train LoRA adapters of a character: register a dataset, make a configuration, submit a job, watch it."
_SHOWN_HEADERS = [
    "location",
    "x-total-count",
    "x-take",
    "x-skip",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "retry-after",
    "etag",
    "content-disposition",
    REQUEST_ID_HEADER,
]
_TAKEN_HEADERS = [
    "x-tenant-id",
    "authorization",
    "x-api-key",
    "idempotency-key",
    "content-type",
    "last-event-id",
    REQUEST_ID_HEADER,
]
"""Of web pages of other origins, which only those in the settings may be."""


def create_app(service: Service) -> FastAPI:
    """The whole API as an ASGI app, which opens and closes `service` with its own lifespan.

    Raises:
        ValidationError: the settings' secret or keys cannot be used.
    """
    settings = service.settings
    authentication = Authentication(service, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="InfluencerAI",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=DOCUMENT_PATH,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
    )
    figures = Figures()
    routers = (  # what is asked most is looked for first
        job_routes(service),
        job_log_routes(service),
        dataset_routes(service),
        dataset_image_routes(service),
        lora_config_routes(service),
        base_model_routes(service),
        cluster_routes(service),
        usage_routes(service),
        health_routes(service, figures),
    )
    for router in routers:
        app.include_router(router)
    add_page(app)
    add_error_handlers(app, [route for router in routers for route in router.routes], folders=service.folders)
    describe(app, settings)
    # The last one added is the first that a request meets.
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(HeadRequests)
    app.add_middleware(Gate, authentication=authentication, service=service)
    app.add_middleware(Entrance)
    app.add_middleware(
        Cors,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=_TAKEN_HEADERS,
        expose_headers=_SHOWN_HEADERS,
    )
    app.add_middleware(Observation, figures=figures)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=[*_also_mapped(settings.trusted_proxies)])
    return app


def _also_mapped(networks: Iterable[str]) -> Iterator[str]:
    """Networks, those of IPv4 also as a socket of both versions, which Serve opens for `::`, names their addresses."""
    for network in map(ip_network, networks):
        yield str(network)
        if network.version == 4:
            yield f"::ffff:{network.network_address}/{96 + network.prefixlen}"
