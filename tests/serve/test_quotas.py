"""Quotas: what a tenant may have and use, refused by name beyond that; usage for itself and for the operator."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, select

from influencerai.errors import QuotaError
from influencerai.service import quotas
from influencerai.settings import Settings
from influencerai.store.attempts import USED
from influencerai.store.schema import reservations
from tests.serve.running import ANN, BOB, Api, checked_error, made, picture, running

pytestmark = pytest.mark.anyio
LIMITS: dict[str, Any] = {
    "rate_limits": True,
    "writes_per_minute": 1000,
    "uploads_per_minute": 1000,
    "reads_per_minute": 1000,
}


@pytest.fixture
async def limited(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Api]:
    settings = Settings(
        root=tmp_path, database_url=sqlite_url, datasets_per_tenant=2, configs_per_tenant=1, jobs_per_day_per_tenant=2,
        active_jobs_per_tenant=100, **LIMITS,
    )  # fmt: skip
    async with running(settings) as api:
        yield api


async def set_quotas(api: Api, tenant: str = ANN, **quotas: Any) -> dict[str, Any]:
    answer = await api.patch(f"/admin/tenants/{tenant}/quotas", quotas)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = {quota["name"]: quota for quota in answer.json()["quotas"]}
    return found


async def usage(api: Api, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get("/usage", **options)).json()
    found["quotas"] = {quota["name"]: quota for quota in found["quotas"]}
    return found


async def test_the_settings_limit_datasets_and_configurations(limited: Api) -> None:
    for _ in range(2):
        last = await limited.dataset()
    body = {"kind": "lora-training", "path": "data/x"}
    refused = checked_error(await limited.post("/datasets", body), 403)
    assert refused["quota"] == {"name": "datasets", "used": 2, "limit": 2}
    assert "datasets" in refused["message"]
    assert "2 of 2" in refused["message"]
    await limited.dataset(tenant=BOB)
    assert (await limited.delete(f"/datasets/{last['id']}")).status_code == 200
    await limited.dataset()
    await limited.config()
    refused = checked_error(await limited.post("/lora-configs", {"name": "b", "modelName": "sd15"}), 403)
    assert refused["quota"] == {"name": "configs", "used": 1, "limit": 1}


@pytest.mark.slow
async def test_jobs_of_a_day_count_even_when_they_are_deleted(limited: Api) -> None:
    first = await limited.failed_job()
    assert (await limited.delete(f"/jobs/{first['id']}")).status_code == 200
    second = await limited.job(**{name: first["payload"][name] for name in ("datasetId", "loraConfigId")})
    body = {"type": "lora-training", "payload": second["payload"]}
    answer = await limited.post("/jobs", body)
    assert checked_error(answer, 429)["quota"] == {"name": "jobsPerDay", "used": 2, "limit": 2}
    assert 0 < int(answer.headers["retry-after"]) <= 86400
    assert (await set_quotas(limited, jobsPerDay=3))["jobsPerDay"]["source"] == "tenant"
    made(await limited.post("/jobs", body))


async def test_gpu_hours_of_a_month(limited: Api) -> None:
    await set_quotas(limited, gpuHoursPerMonth=2, jobsPerDay=None)
    job = await limited.job()
    async with limited.service.store.write() as transaction:
        transaction.counts.add(ANN, USED, f"{datetime.now(UTC):%Y-%m}", "", 2 * 3600 * 1000)
        transaction.counts.add(ANN, USED, "2020-01", "", 3600 * 1000)
    answer = await limited.post("/jobs", {"type": "lora-training", "payload": job["payload"]})
    assert checked_error(answer, 429)["quota"] == {"name": "gpuHoursPerMonth", "used": 2, "limit": 2}
    assert 0 < int(answer.headers["retry-after"]) <= 31 * 86400
    found = await usage(limited)
    assert (found["deviceSeconds"], found["deviceSecondsThisMonth"]) == (10800, 7200)


async def test_what_an_attempt_has_used_is_counted_when_it_ends(api: Api) -> None:
    await api.job()
    lease, _ = await api.claim()
    await asyncio.sleep(0.12)
    running_now = (await usage(api))["deviceSeconds"]
    async with api.service.store.write() as transaction:
        await transaction.queue.finish(lease, ending="failed", result={"error": "x"})
    ended = (await usage(api))["deviceSecondsThisMonth"]
    assert 0.1 <= running_now <= ended + 0.1
    assert (await api.delete(f"/jobs/{lease.job_id}")).status_code == 200
    assert (await usage(api))["deviceSeconds"] == ended


@pytest.mark.slow
async def test_an_upload_may_not_pass_what_is_left_or_what_one_may_have(limited: Api) -> None:
    dataset = await limited.dataset()
    images = f"/datasets/{dataset['id']}/images"
    data = picture(1)
    size = len(data) / 2**20
    await set_quotas(limited, uploadMib=size / 2)
    refused = checked_error(await limited.post(images, files={"files": ("1.png", data)}), 413)
    assert refused["quota"]["name"] == "uploadMib"
    await set_quotas(limited, uploadMib="default", storedGib=2.5 * size / 1024)
    for number in (1, 2):
        answer = await limited.post(images, files={"files": (f"{number}.png", picture(number))})
        assert answer.status_code == 200, answer.text
    refused = checked_error(await limited.post(images, files={"files": ("3.png", picture(3))}), 403)
    assert refused["quota"]["name"] == "storedGib"
    assert {file.name for file in (limited.root / "data/datasets/me").glob("*.png")} == {"1.png", "2.png"}
    # What a refused or failed upload has reserved is free again.
    broken = checked_error(await limited.post(images, files={"files": ("x.png", b"no picture")}), 400)
    assert broken
    stored = (await limited.get("/admin/tenants/ann?refresh=true")).json()["disk"]
    assert stored["datasets"] >= 2 * len(data) * 0.9
    async with limited.service.store.read() as transaction:
        assert await transaction.usage.added_bytes(ANN) == 0


def zipped(*pictures: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(pictures):
            archive.writestr(f"z{number}.png", data)
    return buffer.getvalue()


def packable(number: int) -> bytes:
    """A picture of 60 kB that a zip makes small."""
    buffer = io.BytesIO()
    Image.new("RGB", (160, 128), (number, 1, 1)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


@pytest.mark.slow
async def test_an_archive_counts_as_large_as_it_unpacks(limited: Api) -> None:
    images = f"/datasets/{(await limited.dataset())['id']}/images"
    pictures = [packable(number) for number in range(4)]
    archive, size = zipped(*pictures), sum(map(len, pictures))
    assert len(archive) < size / 20
    files = {"files": ("a.zip", archive)}
    await set_quotas(limited, storedGib=0.9 * size / 2**30)
    refused = checked_error(await limited.post(images, files=files), 403)
    assert refused["quota"]["name"] == "storedGib"
    await set_quotas(limited, storedGib=None, uploadMib=0.9 * size / 2**20)
    assert checked_error(await limited.post(images, files=files), 413)["quota"]["name"] == "uploadMib"
    assert not list((limited.root / "data/datasets/me").glob("*.png"))
    await set_quotas(limited, storedGib=1.5 * size / 2**30, uploadMib="default")
    answer = await limited.post(images, files=files)
    assert answer.status_code == 200, answer.text
    async with limited.service.store.read() as transaction:
        assert size <= await transaction.usage.stored_bytes(ANN) < size + 2000  # with the list of uploaded files
        assert await transaction.reservations.total(ANN) == 0
    assert checked_error(await limited.post(images, files={"files": ("b.zip", zipped(*pictures))}), 403)


@pytest.mark.slow
async def test_a_measurement_during_an_upload_keeps_what_that_has_reserved(limited: Api) -> None:
    service, usage, gib = limited.service.quotas, limited.service.usage, 2**30
    await set_quotas(limited, storedGib=1)
    async with service.uploading(ANN, int(0.7 * gib)) as charge:
        await usage.of(ANN, max_age=0)
        with pytest.raises(QuotaError):
            async with service.uploading(ANN, int(0.7 * gib)):
                pass
        assert await service.upload_limit(ANN) == gib - int(0.7 * gib)
        async with service.uploading(ANN, int(0.2 * gib)):
            pass
        async with service.uploading(BOB, int(0.7 * gib)):
            pass
        charge.written = 1000
    async with limited.service.store.read() as transaction:
        assert await transaction.usage.stored_bytes(ANN) == 1000
        assert await transaction.reservations.total(ANN) == 0


@pytest.mark.slow
async def test_a_dead_servers_reservation_ends_and_a_living_ones_is_renewed(
    limited: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "_RESERVED_SECONDS", 0.6)
    service, store = limited.service.quotas, limited.service.store
    async with store.write() as transaction:
        await transaction.reservations.hold("of a dead server", ANN, size=5, seconds=0.6)
    async with service.uploading(ANN, 7):
        async with store.read() as transaction:
            assert await transaction.reservations.total(ANN) == 12
        await asyncio.sleep(1.2)
        async with store.read() as transaction:
            assert await transaction.reservations.total(ANN) == 7
    async with store.database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(reservations))).scalar_one() == 0


@pytest.mark.slow
async def test_nothing_is_trained_by_who_may_store_no_more(limited: Api) -> None:
    limited.pictures()
    job = await limited.job()
    await set_quotas(limited, storedGib=0)
    refused = checked_error(await limited.post("/jobs", {"type": "lora-training", "payload": job["payload"]}), 403)
    assert refused["quota"]["name"] == "storedGib"


async def test_racing_requests_get_no_more_than_the_quota(tmp_path: Path, database_url: str) -> None:
    settings = Settings(
        root=tmp_path, database_url=database_url, datasets_per_tenant=3, configs_per_tenant=3,
        jobs_per_day_per_tenant=4, active_jobs_per_tenant=100, **LIMITS,
    )  # fmt: skip
    async with running(settings) as one, running(settings) as other:
        servers = [one, other] * 6
        body = {"kind": "lora-training", "path": "data/x"}
        answers = await asyncio.gather(*(api.post("/datasets", body) for api in servers))
        assert Counter(answer.status_code for answer in answers) == {201: 3, 403: 9}
        names = enumerate(servers)
        answers = await asyncio.gather(
            *(api.post("/lora-configs", {"name": f"c{number}", "modelName": "sd15"}) for number, api in names)
        )
        assert Counter(answer.status_code for answer in answers) == {201: 3, 403: 9}
        config = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
        dataset = (await one.get("/datasets")).json()[0]["id"]
        draft = {"type": "lora-training", "payload": {"datasetId": dataset, "loraConfigId": config}}
        answers = await asyncio.gather(*(api.post("/jobs", draft) for api in servers))
        assert Counter(answer.status_code for answer in answers) == {201: 4, 429: 8}


async def test_development_has_no_limits_but_those_of_a_tenant(api: Api) -> None:
    assert {quota["limit"] for quota in (await usage(api))["quotas"].values()} == {None}
    await set_quotas(api, datasets=1)
    await api.dataset()
    checked_error(await api.post("/datasets", {"kind": "lora-training", "path": "data/x"}), 403)
    await api.dataset(tenant=BOB)
    await set_quotas(api, datasets="default")
    await api.dataset()


@pytest.mark.parametrize("body", [
    {"jobs": 1}, {"activeJobs": -1}, {"activeJobs": "many"}, {"activeJob": 1}, {"storedGib": True}, [],
])  # fmt: skip
async def test_a_quota_that_cannot_be_set_is_refused(api: Api, body: Any) -> None:
    answer = await api.patch("/admin/tenants/ann/quotas", body)
    if body == {"jobs": 1}:
        assert answer.json()["warnings"]
    else:
        checked_error(answer, 400)
    checked_error(await api.patch("/admin/tenants/a%20b/quotas", {"activeJobs": 1}), 400)


@pytest.mark.slow
async def test_the_operator_sees_every_tenant(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(root=tmp_path, database_url=sqlite_url, auth="production", rate_limits=False)
    async with running(settings) as api:
        keys = api.service.keys
        owners = {tenant: {"x-api-key": (await keys.create(tenant=tenant))[1]} for tenant in (ANN, BOB)}
        admin = {"x-api-key": (await keys.create(tenant=None, scope="admin"))[1]}
        api.pictures(root=tmp_path / "tenants" / ANN)
        (tmp_path / "tenants" / ANN / "notes.bin").write_bytes(bytes(1000))
        (tmp_path / "tenants" / BOB).mkdir()
        (tmp_path / "tenants" / BOB / "link").symlink_to(tmp_path / "tenants" / ANN)
        for tenant in (ANN, BOB):
            sent = {"kind": "lora-training", "path": "data/datasets/me"}
            dataset = (await api.client.post("/datasets", json=sent, headers=owners[tenant])).json()
            config = {"name": "x", "modelName": "sd15"}
            made_config = (await api.client.post("/lora-configs", json=config, headers=owners[tenant])).json()
            payload = {"datasetId": dataset["id"], "loraConfigId": made_config["id"]}
            body = {"type": "lora-training", "payload": payload}
            assert (await api.client.post("/jobs", json=body, headers=owners[tenant])).status_code == 201

        tenants = (await api.client.get("/admin/tenants?refresh=true", headers=admin)).json()["data"]
        assert [(item["tenantId"], item["jobs"]["pending"]) for item in tenants] == [(ANN, 1), (BOB, 1)]
        disks = [item["disk"] for item in tenants]
        assert disks[0]["datasets"] > 0
        assert disks[0]["other"] == 1000
        assert disks[1]["total"] == 0
        jobs = (await api.client.get("/admin/jobs?status=pending&take=1", headers=admin)).json()
        assert jobs["total"] == 2
        assert [job["tenantId"] for job in jobs["data"]] == [BOB]
        only = (await api.client.get(f"/admin/jobs?tenant={ANN}", headers=admin)).json()
        assert [job["tenantId"] for job in only["data"]] == [ANN]
        for path in ("/admin/tenants", "/admin/jobs", f"/admin/tenants/{ANN}"):
            checked_error(await api.client.get(path, headers=owners[ANN]), 403)
        checked_error(await api.client.patch(f"/admin/tenants/{ANN}/quotas", json={}, headers=owners[ANN]), 403)
        own = (await api.client.get("/usage", headers=owners[ANN])).json()
        assert own["tenantId"] == ANN
        assert own["disk"] == disks[0]
