"""/datasets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from influencerai.dataset import DatasetReport
from influencerai.domain.dataset import (
    Dataset,
    DatasetChange,
    DatasetDraft,
    DatasetQuery,
    DatasetStatusChange,
    ReportQuery,
)
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
from influencerai.serve.documents import Deleted, WarnedDataset, created, errors, page
from influencerai.serve.principal import Editor, FileReader, Owner, Reader
from influencerai.service import Service
from influencerai.service.lora_configs import unknown_field_warnings


def dataset_routes(service: Service) -> APIRouter:
    """Routes over `service.datasets`."""
    max_bytes = service.settings.max_body_kib * 1024
    router = APIRouter(prefix="/datasets", tags=["Datasets"], route_class=strict_route(max_bytes))
    datasets = service.datasets

    @router.post("", responses=created(WarnedDataset) | errors(400, 409, 413), status_code=201)
    async def create_dataset(
        request: Request, tenant: Owner, draft: DatasetDraft, sent: SentBody, key: MaybeKey
    ) -> Response:
        """Register a folder of images and captions; `status` says what was found there."""
        unknown = tuple(unknown_field_warnings(DatasetDraft.unknown_fields(sent)))
        made = await while_connected(request, datasets.create(tenant, draft, unknown=unknown, request=key))
        return answer_document(made.to_wire(), status=201, headers={"location": f"/datasets/{made.value.id}"})

    @router.get("", responses=page(list[Dataset]) | errors(400))
    async def list_datasets(tenant: Reader, query: Annotated[DatasetQuery, Query()]) -> Response:
        """List datasets, filtered by status or kind."""
        return answer_page(await datasets.list(tenant, query), bare=True)

    @router.get("/{id}", response_model=Dataset, responses=errors(404))
    async def get_dataset(request: Request, tenant: Reader, id: str) -> Response:
        """One dataset; a pending one is looked at again."""
        return answer(await while_connected(request, datasets.get(tenant, id)))

    @router.patch("/{id}", response_model=WarnedDataset, responses=errors(400, 404, 413))
    async def update_dataset(tenant: Owner, id: str, change: DatasetChange, sent: SentBody) -> Response:
        """Replace the dataset's `meta`."""
        changed = await datasets.update(tenant, id, meta=change.meta)
        return answer_warned(changed, unknown_field_warnings(DatasetChange.unknown_fields(sent)))

    @router.patch("/{id}/status", response_model=WarnedDataset, responses=errors(400, 404, 413))
    async def update_dataset_status(
        principal: Editor, id: str, change: DatasetStatusChange, sent: SentBody
    ) -> Response:
        """Set the dataset's status by hand; `meta.lastUpdatedBy` says who did."""
        changed = await datasets.set_status(principal.tenant, id, change.status, actor=principal.actor)
        return answer_warned(changed, unknown_field_warnings(DatasetStatusChange.unknown_fields(sent)))

    @router.get("/{id}/report", response_model=DatasetReport, responses=errors(400, 404))
    async def get_dataset_report(
        request: Request, tenant: FileReader, id: str, query: Annotated[ReportQuery, Query()]
    ) -> Response:
        """What was seen in the dataset's folder: each image with its size, caption and faults."""
        return answer(await while_connected(request, datasets.report(tenant, id, refresh=query.refresh)))

    @router.delete("/{id}", response_model=Deleted, responses=errors(400, 404))
    async def delete_dataset(tenant: Owner, id: str) -> Response:
        """Forget a dataset that no active job uses, and remove the files that were uploaded to it."""
        await datasets.delete(tenant, id)
        return answer_document({"success": True, "warnings": []})

    return router
