"""/jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from influencerai.domain.job import Job, JobChange, JobDetail, JobDraft, JobQuery, JobSeries, SeriesQuery, SubmitQuery
from influencerai.preflight import Preflight
from influencerai.serve.bodies import (
    MaybeKey,
    SentBody,
    answer,
    answer_document,
    answer_page,
    answer_warned,
    strict_route,
)
from influencerai.serve.disconnection import while_connected
from influencerai.serve.documents import Deleted, JobPage, WarnedJob, created, errors, page
from influencerai.serve.principal import Editor, Owner, Reader
from influencerai.service import Service
from influencerai.service.lora_configs import unknown_field_warnings

_DRY_RUN = {200: {"model": Preflight, "description": "With `dryRun=true`: what the job would do; nothing is stored."}}


def job_routes(service: Service) -> APIRouter:
    """Routes over `service.jobs`, `service.job_runs` and `service.pre_flights`."""
    max_bytes = service.settings.max_body_kib * 1024
    router = APIRouter(prefix="/jobs", tags=["Jobs"], route_class=strict_route(max_bytes))
    jobs = service.jobs

    @router.post("", responses=_DRY_RUN | created(WarnedJob) | errors(400, 404, 409, 413), status_code=201)
    async def create_job(
        request: Request,
        tenant: Owner,
        draft: JobDraft,
        sent: SentBody,
        key: MaybeKey,
        query: Annotated[SubmitQuery, Query()],
    ) -> Response:
        """Submit a training; with `dryRun=true` check everything and store nothing."""
        if query.dry_run:
            return answer(await while_connected(request, service.pre_flights.check(tenant, draft)))
        made = await jobs.create(tenant, draft, sent["payload"], request=key)
        unknown = unknown_field_warnings(JobDraft.unknown_fields(sent))
        document = {**made.to_wire(), "warnings": [*unknown, *made.warnings]}
        return answer_document(document, status=201, headers={"location": f"/jobs/{made.value.id}"})

    @router.get("", responses=page(JobPage) | errors(400))
    async def list_jobs(tenant: Reader, query: Annotated[JobQuery, Query()]) -> Response:
        """List jobs, filtered by status, metadata, dataset or configuration, with progress and result."""
        return answer_page(await jobs.list(tenant, query))

    @router.get("/series", response_model=JobSeries, responses=errors(400))
    async def get_job_series(tenant: Reader, query: Annotated[SeriesQuery, Query()]) -> Response:
        """Count jobs per day, week or month, back from today."""
        return answer(await jobs.series(tenant, query))

    @router.get("/{id}", response_model=JobDetail, responses=errors(404))
    async def get_job(tenant: Reader, id: str) -> Response:
        """Get one job with what it trains and every attempt at it."""
        return answer(await jobs.detail(tenant, id))

    @router.patch("/{id}", response_model=WarnedJob, responses=errors(400, 404, 409, 413))
    async def update_job(sender: Editor, id: str, change: JobChange, sent: SentBody) -> Response:
        """Report on a job as a worker; or, as its owner, replace the job's `metadata`."""
        if change.metadata is not None:
            sender.require("change")
        if change.is_report or change.metadata is None:
            sender.require("report")
        changed = await jobs.update(sender.tenant, id, change)
        return answer_warned(changed, unknown_field_warnings(JobChange.unknown_fields(sent)))

    @router.post("/{id}/cancel", response_model=Job, responses=errors(404, 409))
    async def cancel_job(tenant: Owner, id: str) -> Response:
        """End a job that has not ended; a running one at its next step."""
        return answer(await jobs.cancel(tenant, id))

    @router.post("/{id}/retry", responses=created(WarnedJob) | errors(400, 404, 409), status_code=201)
    async def retry_job(tenant: Owner, id: str, key: MaybeKey) -> Response:
        """Retry a failed or cancelled job: a new one goes on from its last state."""
        made = await service.job_runs.retry(tenant, id, request=key)
        return answer_document(made.to_wire(), status=201, headers={"location": f"/jobs/{made.value.id}"})

    @router.delete("/{id}", response_model=Deleted, responses=errors(404, 409))
    async def delete_job(tenant: Owner, id: str) -> Response:
        """Delete an ended job with its files."""
        await service.job_runs.delete(tenant, id)
        return answer_document({"success": True, "warnings": []})

    return router
