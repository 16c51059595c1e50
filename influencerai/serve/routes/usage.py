"""/usage of a tenant, and /admin over all of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from influencerai.domain.usage import AdminJobQuery, QuotaChange, Usage, UsageList, UsageQuery
from influencerai.serve.bodies import SentBody, answer, answer_page, answer_warned, strict_route
from influencerai.serve.documents import JobPage, WarnedUsage, errors, page
from influencerai.serve.gate import ADMIN_PATH
from influencerai.serve.principal import Admin, Reader
from influencerai.service import Service
from influencerai.service.lora_configs import unknown_field_warnings

TenantName = Annotated[str, Path(json_schema_extra={"pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"})]
"""The service checks it; the pattern is for the document's readers."""
_OWN_SECONDS = 10.0
"""Whoever asks for its own usage again and again does not have its folders read each time."""


def usage_routes(service: Service) -> APIRouter:
    """Routes over `service.usage` and `service.quotas`."""
    router = APIRouter(tags=["Operation"], route_class=strict_route(service.settings.max_body_kib * 1024))
    usage, quotas = service.usage, service.quotas

    @router.get("/usage", response_model=Usage, responses=errors(400))
    async def get_usage(tenant: Reader, query: Annotated[UsageQuery, Query()]) -> Response:
        """What you have, have used and may use: jobs, device time, bytes on the disk, quotas."""
        return answer(await usage.of(tenant, max_age=_OWN_SECONDS if query.refresh else None))

    @router.get(f"{ADMIN_PATH}/tenants", response_model=UsageList, responses=errors(400))
    async def list_tenants(admin: Admin, query: Annotated[UsageQuery, Query()]) -> Response:
        """Every tenant with its usage and quotas, and the bytes of the cache that they share."""
        return answer(await usage.of_all(refresh=query.refresh))

    @router.get(f"{ADMIN_PATH}/tenants/{{tenant}}", response_model=Usage, responses=errors(400, 404))
    async def get_tenant(admin: Admin, tenant: TenantName, query: Annotated[UsageQuery, Query()]) -> Response:
        """The usage and quotas of one tenant."""
        return answer(await usage.of(tenant, max_age=0 if query.refresh else None))

    @router.patch(
        f"{ADMIN_PATH}/tenants/{{tenant}}/quotas", response_model=WarnedUsage, responses=errors(400, 404, 413)
    )
    async def set_quotas(admin: Admin, tenant: TenantName, change: QuotaChange, sent: SentBody) -> Response:
        """Set quotas of one tenant: a number, null for no limit, or "default"; absent ones stay."""
        await quotas.change(tenant, change.changes())
        return answer_warned(await usage.of(tenant), unknown_field_warnings(QuotaChange.unknown_fields(sent)))

    @router.get(f"{ADMIN_PATH}/jobs", responses=page(JobPage) | errors(400))
    async def list_all_jobs(admin: Admin, query: Annotated[AdminJobQuery, Query()]) -> Response:
        """Jobs of all tenants."""
        return answer_page(await usage.jobs(query))

    return router
