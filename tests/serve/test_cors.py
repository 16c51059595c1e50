"""CORS: web pages of the configured origins may call the API and read what they need, errors too."""

from __future__ import annotations

from pathlib import Path

import pytest

from influencerai.settings import Settings
from tests.serve.running import Api, checked_error, running

pytestmark = pytest.mark.anyio

PAGE = "https://app.example.com"
EXPOSED = {
    "x-total-count",
    "x-take",
    "x-skip",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "retry-after",
    "location",
}


async def test_pages_of_configured_origins(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(
        root=tmp_path, database_url=sqlite_url, cors_origins=(PAGE,), rate_limits=True, reads_per_minute=3
    )
    async with running(settings) as api:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            wanted = "x-tenant-id, authorization, idempotency-key, content-type"
            headers = {"access-control-request-method": method, "access-control-request-headers": wanted}
            preflight = await api.client.options("/datasets", headers={"origin": PAGE, **headers})
            assert preflight.status_code == 200, preflight.text
            assert preflight.headers["access-control-allow-origin"] == PAGE
            assert method in preflight.headers["access-control-allow-methods"]
            allowed = preflight.headers["access-control-allow-headers"].lower()
            assert all(name in allowed for name in wanted.split(", "))
        preflight = await api.client.options("/datasets", headers={"origin": "https://evil", **headers})
        assert "origin" in checked_error(preflight, 400)["message"].lower()
        assert "access-control-allow-origin" not in preflight.headers

        api.service.lora_configs.list = broken  # type: ignore[method-assign, assignment]
        origin = {"origin": PAGE}
        answers = {
            200: await api.get("/datasets", headers=origin),
            401: await api.client.get("/datasets", headers=origin),
            404: await api.get("/datasets/x", headers=origin),
            500: await api.get("/lora-configs", headers=origin),
            429: await api.get("/datasets", headers=origin),
        }
        for status, answer in answers.items():
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert {
                name.strip() for name in answer.headers["access-control-expose-headers"].lower().split(",")
            } >= EXPOSED
            assert answer.headers["x-request-id"]
        assert checked_error(answers[500], 500)["message"] == "Internal server error"
        assert "secret detail" not in answers[500].text
        assert answers[500].headers["x-ratelimit-limit"] == "3"
        assert (
            "access-control-allow-origin"
            not in (await api.get("/datasets", headers={"origin": "https://evil"})).headers
        )


async def test_no_origin_is_allowed_by_default(api: Api) -> None:
    answer = await api.get("/datasets", headers={"origin": PAGE})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_every_origin(tmp_path: Path, sqlite_url: str) -> None:
    async with running(Settings(root=tmp_path, database_url=sqlite_url, cors_origins=("*",))) as api:
        answer = await api.get("/datasets", headers={"origin": "https://anything"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


async def broken(*arguments: object) -> None:
    raise RuntimeError("a secret detail")
