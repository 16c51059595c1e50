from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from influencerai.domain import LoraConfig
from influencerai.domain.dataset import DatasetDraft
from influencerai.domain.job import JobDraft
from influencerai.service import Service
from influencerai.settings import Settings
from tests.cli.conftest import Invoke, json_lines


@pytest.fixture
def admin(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """The command, over a database with a job of each of two tenants."""
    url = f"sqlite:///{tmp_path / 'data.db'}"
    monkeypatch.setenv("INFLUENCERAI_DATABASE_URL", url)
    monkeypatch.setenv("INFLUENCERAI_ROOT", str(tmp_path))
    (tmp_path / "data/me").mkdir(parents=True)
    (tmp_path / "data/me/a.bin").write_bytes(bytes(2**20))

    async def fill() -> None:
        service = Service(Settings(root=tmp_path, database_url=url), needs_worker=False)
        await service.open()
        for tenant in ("ann", "bob"):
            dataset = await service.datasets.create(tenant, DatasetDraft(kind="lora-training", path="data/me"))
            config = await service.lora_configs.create(tenant, LoraConfig(name="x", model_name="sd15"))
            payload = {"datasetId": dataset.value.id, "loraConfigId": config.value.id}
            draft = JobDraft.parse({"type": "lora-training", "payload": payload})
            await service.jobs.create(tenant, draft, payload)
        await service.close()

    anyio.run(fill)
    return lambda *arguments: invoke("admin", *arguments)


def test_tenants_and_their_jobs_in_one_table_each(admin: Invoke) -> None:
    header, *rows = admin("tenants", "--refresh").stdout.splitlines()
    assert header.split()[:3] == ["tenant", "pending", "running"]
    assert [row.split()[:3] for row in rows] == [["ann", "1", "0"], ["bob", "1", "0"]]
    assert all("1.0 MiB" in row for row in rows)
    jobs = admin("jobs", "--tenant", "bob").stdout
    assert "bob" in jobs
    assert "ann" not in jobs
    assert json_lines(admin("jobs", "--json").stdout)[-1]["total"] == 2


def test_the_disk_of_a_tenant_is_measured_when_it_is_asked_for(admin: Invoke) -> None:
    assert "never" in admin("usage").stdout
    assert "1.0 MiB" in admin("usage", "ann", "--refresh").stdout
    assert "cache" in admin("usage").stdout
    assert json_lines(admin("tenants", "--json").stdout)[-1].keys() >= {"data", "cacheBytes"}
    assert json_lines(admin("usage", "ann", "--json").stdout)[-1]["disk"]["datasets"] == 2**20


def test_quotas_are_set_kept_and_taken_back(admin: Invoke) -> None:
    def quotas() -> dict[str, tuple[object, str]]:
        found = json_lines(admin("quota", "show", "ann", "--json").stdout)[-1]["quotas"]
        return {quota["name"]: (quota["limit"], quota["source"]) for quota in found}

    assert admin("quota", "set", "ann", "--jobs", "10", "--stored-gib", "0.5").exit_code == 0
    assert (quotas()["activeJobs"], quotas()["storedGib"]) == ((10, "tenant"), (0.5, "tenant"))
    shown = admin("quota", "set", "ann", "--jobs", "default", "--gpu-hours", "none").stdout
    assert (quotas()["activeJobs"], quotas()["gpuHoursPerMonth"]) == ((None, "default"), (None, "tenant"))
    assert "activeJobs" in shown


@pytest.mark.parametrize(
    "arguments", [("ann",), ("ann", "--jobs", "-1"), ("ann", "--jobs", "many"), ("a b", "--jobs", "1")]
)
def test_a_quota_that_cannot_be_is_refused(admin: Invoke, arguments: tuple[str, ...]) -> None:
    assert admin("quota", "set", *arguments).exit_code == 2


def test_a_database_that_is_not_there_is_not_made(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("admin", "tenants", "--root", tmp_path)
    assert result.exit_code == 1
    assert "There is no database" in result.output
