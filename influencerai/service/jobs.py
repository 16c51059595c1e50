"""Jobs: submitted, shown, reported on, cancelled, retried and deleted."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from influencerai.domain import LoraConfig
from influencerai.domain.dataset import Dataset
from influencerai.domain.job import (
    TERMINAL,
    Attempt,
    Job,
    JobChange,
    JobDetail,
    JobDraft,
    JobPayload,
    JobQuery,
    JobSeries,
    JobTraining,
    SeriesQuery,
)
from influencerai.domain.job_snapshot import DatasetReference, JobSnapshot, first_progress
from influencerai.domain.output_path import output_path
from influencerai.domain.page import Page
from influencerai.domain.relative_path import normalized
from influencerai.domain.training_options import LONGEST_TEXT
from influencerai.errors import ConflictError, NotFoundError, ValidationError
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.answer import Answer, answer_once
from influencerai.service.base_models import BaseModelService
from influencerai.service.dataset_inspections import trigger_word
from influencerai.service.datasets import DatasetService
from influencerai.service.feasibility import impossibility
from influencerai.service.lora_configs import check_config
from influencerai.service.quotas import QuotaService
from influencerai.service.series import DEFAULT_BUCKETS, count_spans, days_since_1970, spans, utc_today
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey
from influencerai.store.job_rows import NewJob, StoredJob
from influencerai.store.queue import Report
from influencerai.store.times import to_datetime


class JobService:
    """One tenant's jobs per call."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        folders: TenantFolders,
        datasets: DatasetService,
        models: BaseModelService,
        quotas: QuotaService,
    ) -> None:
        self._store = store
        self._settings = settings
        self._folders = folders
        self._datasets = datasets
        self._models = models
        self._quotas = quotas

    async def create(
        self, tenant: str, draft: JobDraft, payload: dict[str, Any], *, request: RequestKey | None = None
    ) -> Answer[Job]:
        """Submit a training. `payload` is the draft's as it was sent, and is shown as that.

        Raises:
            NotFoundError: dataset or configuration are not there.
            ValidationError: no configuration is named, and the tenant has no default one.
            TooManyError: a quota of jobs or GPU-hours is used up for now.
            QuotaError: nothing more may be stored.
        """
        ahead = await self._check_ahead(tenant, draft.payload)
        await self._quotas.freshen(tenant)

        async def make(transaction: Transaction) -> Answer[Job]:
            await self._quotas.check_new_job(transaction, tenant)
            dataset, config_id, config = await resolve_draft(transaction, tenant, draft, self._folders)
            named = {} if config_id is None else {"loraConfigId": config_id}
            resolved = with_trigger_word(config, dataset)
            report = await transaction.datasets.report(tenant, dataset.id)
            new = NewJob(
                type=draft.type,
                payload={**JobPayload.by_wire_name(payload), "datasetId": dataset.id, **named},
                snapshot=JobSnapshot(config=resolved, dataset=_reference(dataset, report)),
                dataset_id=dataset.id,
                config_id=config_id,
                priority=draft.payload.priority,
                output_dir=normalized(output_path(config)),
                metadata=draft.metadata,
            )
            stored = await transaction.jobs.add(tenant, new)
            warnings = (*_warnings(draft, payload, dataset, resolved), *ahead)
            return Answer(value=stored.job, warnings=warnings)

        return await answer_once(self._store, tenant, request, Job, make)

    async def list(self, tenant: str, query: JobQuery) -> Page[Job]:
        """A slice of the tenant's jobs."""
        async with self._store.read() as transaction:
            return await transaction.jobs.page(tenant, query)

    async def get(self, tenant: str, id: str) -> Job:
        """One job.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._store.read() as transaction:
            found = await transaction.jobs.get(tenant, id)
        if found is None:
            raise not_found(id)
        return found

    async def detail(self, tenant: str, id: str) -> JobDetail:
        """One job with what it trains and every attempt at it.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._store.read() as transaction:
            found = await transaction.jobs.detail(tenant, id)
            if found is None:
                raise not_found(id)
            attempts = await transaction.jobs.attempts(tenant, id)
        job, document, output_dir = found
        return JobDetail.model_construct(  # without validation: the database holds what was validated
            **job.__dict__,
            training=JobTraining.model_construct(**document, output_dir=output_dir),
            attempts=tuple(_attempt(row) for row in attempts),
        )

    async def update(self, tenant: str, id: str, change: JobChange) -> Job:
        """Record the report of an external worker; `running` claims a pending job, and each report renews the claim.

        A change of the metadata alone is the tenant's, and no report.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job has ended, is one of our workers', or cannot go to that status.
        """

        def decide(stored: StoredJob) -> Report:
            _check_report(stored, change)
            result = change.result
            if change.status == "running" and stored.job.status == "pending" and result is None:
                result = {"progress": first_progress(stored.document)}
            status = change.status or ("running" if stored.job.status == "running" else None)
            return Report(status=status, result=result, cost_tok=change.cost_tok)

        async with self._store.write() as transaction:
            if change.metadata is not None:
                changed = await transaction.jobs.set_metadata(tenant, id, change.metadata)
                if changed is not None and not change.is_report:
                    return changed
            stored = await transaction.queue.report(tenant, id, decide, seconds=self._settings.external_lease_seconds)
        if stored is None:
            raise not_found(id)
        return stored.job

    async def cancel(self, tenant: str, id: str) -> Job:
        """End a job that has not ended; our workers see it at the next step.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job has ended by itself.
        """

        def decide(stored: StoredJob) -> bool:
            job = stored.job
            if job.status in TERMINAL and not (job.result or {}).get("cancelled"):
                raise ConflictError(f"Job {id} has ended: it is {job.status}")
            return job.status not in TERMINAL and not job.cancel_requested

        async with self._store.write() as transaction:
            stored = await transaction.queue.cancel(tenant, id, decide)
        if stored is None:
            raise not_found(id)
        return stored.job

    async def series(self, tenant: str, query: SeriesQuery) -> JobSeries:
        """Jobs per day, week or month."""
        found = spans(query.window, buckets=query.buckets or DEFAULT_BUCKETS[query.window], today=utc_today())
        async with self._store.read() as transaction:
            per_day = await transaction.jobs.per_day(tenant, since=days_since_1970(found[0][0]))
        return JobSeries(window=query.window, data=count_spans(found, per_day))

    async def _check_ahead(self, tenant: str, payload: JobPayload) -> tuple[str, ...]:
        """Inspect a pending dataset again, whose folder may be there by now; warnings about base model and cluster.

        Whether dataset and configuration exist is decided later, in the transaction that makes the job.
        """
        async with self._store.read() as transaction:
            dataset = await transaction.datasets.get(tenant, payload.dataset_id)
            nodes = await transaction.nodes.seen(within_seconds=self._settings.lease_seconds)
            config: LoraConfig | None = payload.lora_config
            if config is None and payload.lora_config_id is not None:
                config = await transaction.lora_configs.get(tenant, payload.lora_config_id)
            elif config is None:
                config = await transaction.lora_configs.default(tenant)
        if dataset is not None and dataset.status == "pending":
            await self._datasets.inspections.inspect_again(tenant, dataset)
        if config is None:
            return ()
        impossible = await impossibility(config, nodes, self._settings)
        return (*await self._models.warnings(config.model_name), *([impossible] if impossible else ()))


def with_trigger_word(config: LoraConfig, dataset: Dataset) -> LoraConfig:
    """The configuration as it trains on this dataset; its own trigger word wins."""
    word = trigger_word(dataset.meta)
    if word is None or config.options.trigger_word:
        return config
    return config.with_option("trigger_word", word[:LONGEST_TEXT])


def not_found(id: str) -> NotFoundError:
    """The contract's sentence about a job."""
    return NotFoundError.of("Job", id)


async def resolve_draft(
    transaction: Transaction, tenant: str, draft: JobDraft, folders: TenantFolders
) -> tuple[Dataset, str | None, LoraConfig]:
    """Dataset, id of the stored configuration (None: the draft brings its own), and the configuration."""
    payload = draft.payload
    dataset = await transaction.datasets.get(tenant, payload.dataset_id)
    if dataset is None:
        raise NotFoundError.of("Dataset", payload.dataset_id, field="payload.datasetId")
    if payload.lora_config is not None:
        check_config(tenant, payload.lora_config, folders, prefix="payload.loraConfig.")
        return dataset, None, payload.lora_config
    if payload.lora_config_id is None:
        record = await transaction.lora_configs.default(tenant)
        if record is None:
            text = "Required, since the tenant has no default configuration"
            raise ValidationError(field_errors={"payload.loraConfigId": [text]})
    else:
        record = await transaction.lora_configs.get(tenant, payload.lora_config_id)
        if record is None:
            raise NotFoundError.of("LoRA config", payload.lora_config_id, field="payload.loraConfigId")
    return dataset, record.id, record.config


def _reference(dataset: Dataset, report: dict[str, Any] | None) -> DatasetReference:
    """The dataset with the images that `report`, of its last inspection, lists."""
    images = [(image["path"], image["sha256"]) for image in (report or {}).get("images", []) if image.get("sha256")]
    fingerprint = hashlib.sha256(json.dumps(images).encode()).hexdigest() if images else None
    return DatasetReference(id=dataset.id, path=dataset.path, fingerprint=fingerprint)


def _warnings(draft: JobDraft, payload: dict[str, Any], dataset: Dataset, config: LoraConfig) -> list[str]:
    found = [f"Unknown field 'payload.{name}' is ignored." for name in type(draft.payload).unknown_fields(payload)]
    if dataset.status != "ready":
        found.append(f"The dataset is {dataset.status}: the job waits, and fails if its folder cannot be used then.")
    if dataset.kind != "lora-training":
        found.append(f"The dataset was registered for {dataset.kind}.")
    return [*found, *config.warnings]


def _check_report(stored: StoredJob, change: JobChange) -> None:
    job = stored.job
    if job.status in TERMINAL:
        if change.status not in (None, job.status):
            raise ConflictError(f"Job {job.id} has ended: it is {job.status} and cannot become {change.status}")
        if change.result is not None and change.result != job.result:
            raise ConflictError(f"Job {job.id} has ended: its result stays as it is")
    elif stored.owner == "ours":
        raise ConflictError(
            f"Job {job.id} is being trained by attempt {stored.fence}, which alone reports on it",
            remedy="To end it, cancel it.",
        )
    elif job.status == "running" and change.status == "pending":
        raise ConflictError(f"Job {job.id} is running and cannot become pending")


def _attempt(row: dict[str, Any]) -> Attempt:
    return Attempt(
        number=row["fence"],
        node=row["node"],
        started_at=to_datetime(row["started_at"]),
        begun_at=None if row["begun_at"] is None else to_datetime(row["begun_at"]),
        ended_at=None if row["ended_at"] is None else to_datetime(row["ended_at"]),
        devices=row["devices"],
        outcome=row["outcome"],
        error=row["error"],
        code=row["code"],
        remedy=row["remedy"],
    )
