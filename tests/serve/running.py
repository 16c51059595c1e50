"""Short ways to run the API and to fill it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies import models
from fastapi.routing import APIRoute
from httpx2 import ASGITransport, AsyncClient, Response
from PIL import Image
from sqlalchemy import func, select

from influencerai.serve.app import create_app
from influencerai.service import Service
from influencerai.settings import Settings
from influencerai.store.job_rows import StoredJob
from influencerai.store.pending_jobs import ClaimRules
from influencerai.store.queue import Lease
from influencerai.store.schema import metadata

ANN, BOB = "ann", "bob"
UNKNOWN_ID = "01a20000-0000-7000-8000-000000000000"
JSON = {"content-type": "application/json"}


@dataclass(kw_only=True)
class Api:
    """A running app, its service, and a client that says it is ann."""

    app: FastAPI
    service: Service
    client: AsyncClient

    @property
    def root(self) -> Path:
        return self.service.settings.root

    async def send(self, method: str, path: str, *, tenant: str = ANN, **options: Any) -> Response:
        headers = {"x-tenant-id": tenant, **options.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **options)

    async def get(self, path: str, **options: Any) -> Response:
        return await self.send("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Response:
        return await self.send("POST", path, **({} if body is None else {"json": body}), **options)

    async def patch(self, path: str, body: Any, **options: Any) -> Response:
        return await self.send("PATCH", path, json=body, **options)

    async def delete(self, path: str, **options: Any) -> Response:
        return await self.send("DELETE", path, **options)

    async def dataset(self, *, tenant: str = ANN, **fields: Any) -> dict[str, Any]:
        """A new dataset; its folder is made by `pictures`, or is not there."""
        body = {"kind": "lora-training", "path": "data/datasets/me", **fields}
        return made(await self.post("/datasets", body, tenant=tenant))

    async def config(self, *, tenant: str = ANN, **fields: Any) -> dict[str, Any]:
        body = {"name": "Portrait", "modelName": "sd15", **fields}
        return made(await self.post("/lora-configs", body, tenant=tenant))

    async def job(self, *, tenant: str = ANN, **payload: Any) -> dict[str, Any]:
        """A new job on a dataset and a configuration of its own, unless `payload` names them."""
        if "datasetId" not in payload:
            payload["datasetId"] = (await self.dataset(tenant=tenant))["id"]
        if "loraConfigId" not in payload:
            taken = (await self.get("/lora-configs?take=1", tenant=tenant)).json()["total"]
            payload["loraConfigId"] = (await self.config(tenant=tenant, name=f"Portrait {taken}"))["id"]
        return made(await self.post("/jobs", {"type": "lora-training", "payload": payload}, tenant=tenant))

    async def failed_job(self, *, tenant: str = ANN) -> dict[str, Any]:
        job = await self.job(tenant=tenant)
        ended = await self.patch(f"/jobs/{job['id']}", {"status": "failed", "result": {"error": "no"}}, tenant=tenant)
        found: dict[str, Any] = ended.json()
        assert found["status"] == "failed", found
        return found

    def pictures(self, path: str = "data/datasets/me", *, count: int = 2, root: Path | None = None) -> Path:
        """A folder of small pictures with captions."""
        folder = (root or self.root) / path
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / f"{number}.png").write_bytes(picture(number))
            (folder / f"{number}.txt").write_text(f"ohwx, scene {number}")
        return folder

    async def claim(self) -> tuple[Lease, StoredJob]:
        """Take a job as one of our own workers does."""
        rules = ClaimRules(seconds=60, running_per_tenant=100, dataset_wait_seconds=0)
        async with self.service.store.write() as transaction:
            claimed = await transaction.queue.claim(node="here", rules=rules)
        assert claimed is not None
        return claimed

    async def rows(self) -> dict[str, int]:
        """How many rows each table has, but for what maintenance writes."""
        async with self.service.store.database.read() as connection:
            return {
                table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in metadata.sorted_tables
                if table.name not in ("tenants", "workers", "counts")
            }


def picture(number: int = 0, *, size: tuple[int, int] = (160, 128)) -> bytes:
    """A PNG that no other number gives."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (number * 40 % 256, 90, number % 256)).save(buffer, "PNG")
    return buffer.getvalue()


def made(response: Response) -> dict[str, Any]:
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def checked_error(response: Response, *statuses: int) -> dict[str, Any]:
    """The body of an error, which has the contract's shape."""
    assert response.status_code in statuses, (
        response.request.method,
        str(response.request.url)[:200],
        response.text[:500],
    )
    body: dict[str, Any] = json.loads(response.content)
    assert body["statusCode"] == response.status_code
    assert body["message"]
    assert isinstance(body["message"], str)
    assert body.keys() <= {"statusCode", "message", "errors", "code", "remedy", "id", "quota"}
    assert body["code"]
    assert body["remedy"]
    for name, texts in body.get("errors", {}).get("fieldErrors", {}).items():
        assert isinstance(name, str)
        assert texts
        assert all(isinstance(text, str) for text in texts)
    for word in ("Traceback", "sqlalchemy", "sqlite3", "asyncpg"):
        assert word not in response.text
    return body


def field_errors(response: Response) -> dict[str, list[str]]:
    body = checked_error(response, 400)
    assert body["message"] == "Validation failed"
    found: dict[str, list[str]] = body["errors"]["fieldErrors"]
    return found


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """(method, path) of everything that the app answers, documentation apart."""
    return {
        (method, route.path)
        for route in _flat(app.routes)
        for method in route.methods or ()
        if not route.path.startswith("/api")
    }


def _flat(found: Any) -> list[APIRoute]:
    flat: list[APIRoute] = []
    for route in found:
        inner = getattr(route, "original_router", None)
        flat += _flat(inner.routes) if inner is not None else [route] if isinstance(route, APIRoute) else []
    return flat


@asynccontextmanager
async def running(settings: Settings, *, needs_worker: bool = False) -> AsyncIterator[Api]:
    """The API over its own database, until the end of the block."""
    service = Service(settings, needs_worker=needs_worker)
    app = create_app(service)
    transport = ASGITransport(app, raise_app_exceptions=False)
    try:
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=transport, base_url="http://server", timeout=60) as client,
        ):
            yield Api(app=app, service=service, client=client)
    finally:
        _forget_endpoints()


def _forget_endpoints() -> None:
    """FastAPI remembers thousands of endpoints it has seen, and with each its app of 30,000 objects.

    A server has one app; hundreds of them in one process make every garbage collection take seconds.
    """
    for found in vars(models).values():
        if hasattr(found, "cache_clear"):
            found.cache_clear()
