"""Rate limits: so many requests a minute, counted by tenant and kind; and so many active jobs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient, Response

from influencerai.serve import rate_limits
from influencerai.settings import Settings
from influencerai.store import request_counts
from tests.serve.running import ANN, BOB, Api, checked_error, picture, running

pytestmark = pytest.mark.anyio


@pytest.fixture
async def limited(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Api]:
    settings = Settings(
        root=tmp_path,
        database_url=sqlite_url,
        rate_limits=True,
        reads_per_minute=4,
        writes_per_minute=3,
        uploads_per_minute=2,
    )
    async with running(settings) as api:
        yield api


def allowance(response: Response) -> tuple[int, int]:
    reset = int(response.headers["x-ratelimit-reset"])
    assert time.time() - 1 <= reset <= time.time() + 62
    return int(response.headers["x-ratelimit-limit"]), int(response.headers["x-ratelimit-remaining"])


async def test_each_kind_has_its_own_allowance(limited: Api) -> None:
    paths = ["/datasets", "/nowhere", "/jobs?take=0", "/jobs/x"]
    for left, path in zip((3, 2, 1, 0), paths, strict=True):
        assert allowance(await limited.get(path)) == (4, left)
    refusal = await limited.get("/datasets")
    assert "Too many requests" in checked_error(refusal, 429)["message"]
    assert allowance(refusal) == (4, 0)
    assert 1 <= int(refusal.headers["retry-after"]) <= 61

    made = await limited.dataset()  # writes are counted apart
    for left in (1, 0):
        assert allowance(await limited.patch(f"/datasets/{made['id']}", {"meta": {}})) == (3, left)
    checked_error(await limited.delete(f"/datasets/{made['id']}"), 429)

    for left in (1, 0):
        upload = {"files": ("a.png", picture())}
        answer = await limited.send("POST", f"/datasets/{made['id']}/images", files=upload)
        assert answer.status_code == 200
        assert allowance(answer) == (2, left)
    caption = f"/datasets/{made['id']}/images/a.png/caption"
    checked_error(await limited.send("PUT", caption, json={"caption": "x"}), 429)

    assert allowance(await limited.get("/datasets", tenant=BOB)) == (4, 3)
    for path in ("/healthz", "/readyz", "/api"):
        assert "x-ratelimit-limit" not in (await limited.get(path)).headers


@pytest.mark.slow
async def test_off_in_development_and_for_workers(api: Api, tmp_path: Path, sqlite_url: str) -> None:
    assert "x-ratelimit-limit" not in (await api.get("/datasets")).headers
    settings = Settings(root=tmp_path, database_url=sqlite_url, auth="production", reads_per_minute=1)
    async with running(settings) as production:
        _, owner = await production.service.keys.create(tenant=ANN)
        _, worker = await production.service.keys.create(tenant=None)
        for _ in range(3):
            headers = {"x-api-key": worker}
            assert (await production.get("/datasets", headers=headers)).status_code == 200
        statuses = [(await production.get("/datasets", headers={"x-api-key": owner})).status_code for _ in range(2)]
        assert statuses == [200, 429]


@pytest.mark.slow
async def test_the_window_passes(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_counts, "WINDOW_MS", 1500)
    settings = Settings(root=tmp_path, database_url=sqlite_url, rate_limits=True, reads_per_minute=1)
    async with running(settings) as api:
        assert [(await api.get("/datasets")).status_code for _ in range(2)] == [200, 429]
        await asyncio.sleep(1.6)
        assert (await api.get("/datasets")).status_code == 200


@pytest.mark.parametrize("limit", [10, 100])
async def test_two_servers_of_one_database_share_a_limit(tmp_path: Path, database_url: str, limit: int) -> None:
    settings = Settings(root=tmp_path, database_url=database_url, rate_limits=True, reads_per_minute=limit)
    async with running(settings) as first, running(settings) as second:
        asked = [api.get("/datasets") for _ in range(limit) for api in (first, second)]
        statuses = Counter([(await answer).status_code for answer in asked])
        assert limit - limit // 20 <= statuses[200] <= limit  # the other server may have kept a few
        assert statuses[429] == 2 * limit - statuses[200]
        left = allowance(await second.get("/datasets"))
        assert left == (limit, 0)
        assert allowance(await first.get("/datasets", tenant=BOB)) == (limit, limit - 1)


@pytest.mark.slow
async def test_many_at_once_are_counted_each(tmp_path: Path, database_url: str) -> None:
    settings = Settings(root=tmp_path, database_url=database_url, rate_limits=True, reads_per_minute=40)
    async with running(settings) as first, running(settings) as second:
        answers = await asyncio.gather(*(api.get("/datasets") for _ in range(40) for api in (first, second)))
        assert 36 <= Counter(answer.status_code for answer in answers)[200] <= 40


@pytest.mark.parametrize(
    ("peer", "last"),
    [
        ("10.1.2.3", 401),
        ("127.0.0.1", 401),
        ("192.0.2.1", 429),
        ("::ffff:10.1.2.3", 401),  # as a socket of both versions names it
        ("::ffff:192.0.2.1", 429),
    ],
)
async def test_only_a_trusted_proxy_names_the_client(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, peer: str, last: int
) -> None:
    monkeypatch.setattr(rate_limits, "_WRONG_PER_MINUTE", 2)
    proxies = ("127.0.0.1", "10.0.0.0/8")
    settings = Settings(root=tmp_path, database_url=sqlite_url, auth="production", trusted_proxies=proxies)
    async with running(settings) as api:
        transport = ASGITransport(api.app, raise_app_exceptions=False, client=(peer, 1))
        async with AsyncClient(transport=transport, base_url="http://server") as client:

            async def ask(forwarded: str) -> int:
                return (await client.get("/datasets", headers={"x-forwarded-for": forwarded})).status_code

            # What a client has written itself stands before what the proxies have added.
            statuses = [await ask(f"198.51.100.9, 203.0.113.{number}, 10.9.9.9") for number in range(4)]
            assert statuses == [401, 401, last, last]
            again = [await ask(f"198.51.100.{number}, 203.0.113.0") for number in range(3)]
            assert again[-1] == 429


async def test_wrong_credentials_are_limited_by_address(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "_WRONG_PER_MINUTE", 5)
    settings = Settings(root=tmp_path, database_url=sqlite_url, auth="production")
    async with running(settings) as api:
        _, known = await api.service.keys.create(tenant=ANN)
        _, new = await api.service.keys.create(tenant=BOB)

        async def ask(key: str | None) -> Response:
            headers = {} if key is None else {"x-api-key": key}
            return await api.client.get("/datasets", headers=headers)

        assert (await ask(known)).status_code == 200
        statuses = [(await ask(f"iak_{'x' * 40}{number}")).status_code for number in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        asked = 0
        authenticate = api.service.keys.authenticate

        async def counted(secret: str) -> object:
            nonlocal asked
            asked += 1
            return await authenticate(secret)

        monkeypatch.setattr(api.service.keys, "authenticate", counted)
        for wrong in ("iak_x", "a.b.c", None):
            refusal = await ask(wrong)
            assert "address" in checked_error(refusal, 429)["message"]
            assert 1 <= int(refusal.headers["retry-after"]) <= 61
        assert asked == 0  # the database is not asked for them
        assert (await ask(known)).status_code == 200  # the key was right before
        monkeypatch.setattr(rate_limits, "_LOOK_UPS_PER_SECOND", 0)
        assert (await ask(new)).status_code == 429
        monkeypatch.setattr(rate_limits, "_LOOK_UPS_PER_SECOND", 3)
        assert (await ask(new)).status_code == 200  # who else sends from the address does not keep it out
        asked, begun = 0, time.monotonic()
        forms = [f"iak_{'x' * 40}{number}" for number in range(100, 120)]
        assert [(await ask(form)).status_code for form in forms] == [429] * 20
        assert asked <= 3 * (time.monotonic() - begun + 2)
        assert (await api.client.get("/healthz")).status_code == 200


async def test_only_so_many_active_jobs_even_at_once(tmp_path: Path, database_url: str) -> None:
    settings = Settings(
        root=tmp_path, database_url=database_url, rate_limits=True, writes_per_minute=1000, active_jobs_per_tenant=5
    )
    async with running(settings) as api:
        dataset, config = await api.dataset(), await api.config()
        body = {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": config["id"]}}
        answers = await asyncio.gather(*(api.post("/jobs", body) for _ in range(20)))
        assert Counter(answer.status_code for answer in answers) == {201: 5, 429: 15}
        refusal = next(answer for answer in answers if answer.status_code == 429)
        assert "active jobs" in checked_error(refusal, 429)["message"]
        assert int(refusal.headers["retry-after"]) > 0
        assert (await api.get("/jobs")).json()["total"] == 5
        await api.job(tenant=BOB)

        first, second = [answer.json()["id"] for answer in answers if answer.status_code == 201][:2]
        assert (await api.post(f"/jobs/{first}/cancel")).status_code == 200
        assert (await api.post("/jobs", body)).status_code == 201
        checked_error(await api.post(f"/jobs/{first}/retry"), 429)
        assert (await api.post("/jobs?dryRun=true", body)).status_code == 200
        assert (await api.post(f"/jobs/{second}/cancel")).status_code == 200
        assert (await api.post(f"/jobs/{first}/retry")).status_code == 201


async def test_a_repeated_request_is_answered_at_the_limit(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(root=tmp_path, database_url=sqlite_url, rate_limits=True, active_jobs_per_tenant=1)
    async with running(settings) as api:
        dataset, config = await api.dataset(), await api.config()
        body = {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": config["id"]}}
        key = {"idempotency-key": "once"}
        first = await api.post("/jobs", body, headers=key)
        assert (await api.post("/jobs", body, headers=key)).content == first.content
        checked_error(await api.post("/jobs", body), 429)
