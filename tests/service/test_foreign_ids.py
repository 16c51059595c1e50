"""Every public method of every service: another tenant's thing is an unknown one."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from influencerai.domain import LoraConfig
from influencerai.domain.dataset import DatasetDraft, DatasetQuery, ImageQuery
from influencerai.domain.job import JobChange, JobDraft, JobQuery, SeriesQuery
from influencerai.domain.job_log import EventQuery, MetricQuery
from influencerai.domain.lora_config_record import LoraConfigQuery
from influencerai.errors import NotFoundError
from influencerai.service import Service
from influencerai.settings import Settings

pytestmark = pytest.mark.anyio

ANN, BOB = "ann", "bob"
UNKNOWN = "01a20000-0000-7000-8000-000000000000"
NOUNS = {
    "base_models",
    "datasets",
    "dataset_images",
    "lora_configs",
    "jobs",
    "job_runs",
    "job_log",
    "pre_flights",
    "event_streams",
    "keys",
    "health",
    "cluster",
    "usage",
    "quotas",
    "cleanup",
}
NOT_A_TENANTS = {
    "base_models.list",
    "base_models.warnings",
    "event_streams.close",
    "event_streams.open_streams",
    "health.readiness",
    "health.figures",
    "health.close",
    "keys.create",
    "keys.list",
    "keys.revoke",
    "keys.authenticate",
    "keys.write_uses",
    "usage.close",
    "usage.of_all",
    "cleanup.run",
    "usage.jobs",
    "usage.freshen",
    "quotas.change",
    "quotas.check_new",
    "quotas.check_new_job",
    "quotas.freshen",
    "quotas.upload_limit",
    "quotas.uploading",
}
"""For the process or its operator; no route lends them to a tenant."""
OF_ITS_OWN = {"datasets.inspect_soon", "datasets.inspections", "datasets.opened"}
"""Given a dataset that a method above has found."""
OWN_VIEW = {"cluster.show", "usage.of", "event_streams.check_room"}
"""A tenant's part of what is shared; tested in tests/serve/test_cluster.py."""
Call = Callable[[Service, str, dict[str, str]], Any]
LISTS: dict[str, Call] = {
    "datasets.list": lambda s, t, ids: s.datasets.list(t, DatasetQuery()),
    "lora_configs.list": lambda s, t, ids: s.lora_configs.list(t, LoraConfigQuery()),
    "jobs.list": lambda s, t, ids: s.jobs.list(t, JobQuery()),
    "jobs.series": lambda s, t, ids: s.jobs.series(t, SeriesQuery()),
}
CREATES: dict[str, Call] = {
    "datasets.create": lambda s, t, ids: s.datasets.create(t, DatasetDraft(kind="lora-training", path="data/me")),
    "lora_configs.create": lambda s, t, ids: s.lora_configs.create(t, LoraConfig(name="x", model_name="y")),
}
BY_ID: dict[str, Call] = {
    "datasets.get": lambda s, t, ids: s.datasets.get(t, ids["dataset"]),
    "datasets.find": lambda s, t, ids: s.datasets.find(t, ids["dataset"]),
    "datasets.set_status": lambda s, t, ids: s.datasets.set_status(t, ids["dataset"], "ready", actor=t),
    "datasets.update": lambda s, t, ids: s.datasets.update(t, ids["dataset"], meta={"a": 1}),
    "datasets.report": lambda s, t, ids: s.datasets.report(t, ids["dataset"], refresh=True),
    "datasets.delete": lambda s, t, ids: s.datasets.delete(t, ids["dataset"]),
    "datasets.note_caption": lambda s, t, ids: s.datasets.note_caption(t, ids["dataset"], "0.png", "x"),
    "dataset_images.upload": lambda s, t, ids: s.dataset_images.upload(
        t, ids["dataset"], [("a.png", io.BytesIO(b"x"))], captions={}
    ),
    "dataset_images.list": lambda s, t, ids: s.dataset_images.list(t, ids["dataset"], ImageQuery()),
    "dataset_images.upload_limit": lambda s, t, ids: s.dataset_images.upload_limit(t, ids["dataset"]),
    "dataset_images.thumbnail": lambda s, t, ids: s.dataset_images.thumbnail(t, ids["dataset"], "0.png"),
    "dataset_images.write_caption": lambda s, t, ids: s.dataset_images.write_caption(t, ids["dataset"], "0.png", "x"),
    "lora_configs.get": lambda s, t, ids: s.lora_configs.get(t, ids["config"]),
    "lora_configs.update": lambda s, t, ids: s.lora_configs.update(t, ids["config"], {"epochs": 3}),
    "lora_configs.delete": lambda s, t, ids: s.lora_configs.delete(t, ids["config"]),
    "jobs.get": lambda s, t, ids: s.jobs.get(t, ids["job"]),
    "jobs.detail": lambda s, t, ids: s.jobs.detail(t, ids["job"]),
    "jobs.update": lambda s, t, ids: s.jobs.update(t, ids["job"], JobChange(status="running")),
    "jobs.cancel": lambda s, t, ids: s.jobs.cancel(t, ids["job"]),
    "jobs.create": lambda s, t, ids: s.jobs.create(t, draft(ids), {"datasetId": ids["dataset"]}),
    "job_runs.retry": lambda s, t, ids: s.job_runs.retry(t, ids["job"]),
    "job_runs.delete": lambda s, t, ids: s.job_runs.delete(t, ids["job"]),
    "job_log.events": lambda s, t, ids: s.job_log.events(t, ids["job"], EventQuery()),
    "job_log.metrics": lambda s, t, ids: s.job_log.metrics(t, ids["job"], MetricQuery()),
    "job_log.artifacts": lambda s, t, ids: s.job_log.artifacts(t, ids["job"]),
    "job_log.artifact": lambda s, t, ids: s.job_log.artifact(t, ids["job"], "x"),
    "job_log.thumbnail": lambda s, t, ids: s.job_log.thumbnail(t, ids["job"], "x"),
    "pre_flights.check": lambda s, t, ids: s.pre_flights.check(t, draft(ids)),
    "event_streams.follow": lambda s, t, ids: anext(s.event_streams.follow(t, ids["job"])),
}


def draft(ids: dict[str, str]) -> JobDraft:
    return JobDraft.parse(
        {"type": "lora-training", "payload": {"datasetId": ids["dataset"], "loraConfigId": ids["config"]}}
    )


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    opened = Service(Settings(root=tmp_path, database_url=database_url), needs_worker=False)
    await opened.open()
    yield opened
    await opened.close()


async def fill(service: Service, tenant: str) -> dict[str, str]:
    dataset = await CREATES["datasets.create"](service, tenant, {})
    config = await CREATES["lora_configs.create"](service, tenant, {})
    ids = {"dataset": dataset.value.id, "config": config.value.id}
    job = await service.jobs.create(tenant, draft(ids), {"datasetId": ids["dataset"]})
    return {**ids, "job": job.value.id}


def test_every_method_is_in_the_matrix() -> None:
    service = Service(Settings())
    found = {
        f"{noun}.{name}"
        for noun in NOUNS
        for name, _ in inspect.getmembers_static(getattr(service, noun))
        if not name.startswith("_")
    }
    assert found == NOT_A_TENANTS | OF_ITS_OWN | OWN_VIEW | LISTS.keys() | CREATES.keys() | BY_ID.keys()
    others = {"settings", "store", "folders", "open", "close"}
    assert {name for name in dir(service) if not name.startswith("_")} == {*NOUNS, *others}


async def test_anothers_thing_is_an_unknown_one(service: Service) -> None:
    ids = await fill(service, ANN)
    unknown = dict.fromkeys(ids, UNKNOWN)
    before = await seen(service, ids)
    for name, call in BY_ID.items():
        foreign, missing = [await refusal(call(service, BOB, wanted)) for wanted in (ids, unknown)]
        for id in ids.values():
            foreign = foreign.replace(id, UNKNOWN)
        assert foreign == missing, name
        assert UNKNOWN in missing
    assert await seen(service, ids) == before


async def test_lists_hold_ones_own(service: Service) -> None:
    await fill(service, ANN)
    for name, call in LISTS.items():
        theirs, ours = await call(service, BOB, {}), await call(service, ANN, {})
        if name == "jobs.series":
            assert sum(row.pending for row in theirs.data) == 0
            assert sum(row.pending for row in ours.data) == 1
        else:
            assert (theirs.items, theirs.total, ours.total) == ((), 0, 1)


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(NotFoundError) as caught:
        await call
    return f"{caught.value} {caught.value.field_errors}"


async def seen(service: Service, ids: dict[str, str]) -> list[Any]:
    names = ("datasets.get", "lora_configs.get", "jobs.detail", "job_log.events", "job_log.artifacts")
    return [await BY_ID[name](service, ANN, ids) for name in names]
