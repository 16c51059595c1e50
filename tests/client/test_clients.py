"""One suite for both clients: everything that a tenant can do, over real HTTP."""

from __future__ import annotations

import asyncio
import inspect
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from influencerai import LoraConfig
from influencerai.client import AsyncInfluencerAIClient, InfluencerAIClient
from influencerai.domain.dataset import Dataset
from influencerai.domain.job import JobDetail
from influencerai.domain.job_log import JobEvent
from influencerai.errors import (
    AuthenticationError,
    ConflictError,
    DatasetError,
    ModelError,
    NotFoundError,
    OutOfMemoryError,
    PermissionDeniedError,
    RefusedError,
    TooManyError,
    TrainingError,
    ValidationError,
)
from influencerai.scheduling.placement import Node
from influencerai.service.keys import KeyService
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.nodes import NodeState
from tests.client.both import Kind, opened
from tests.client.conftest import Connect
from tests.client.filled import submit, write, write_pictures
from tests.databases import Databases
from tests.serve.running import BOB, UNKNOWN_ID
from tests.serve.sockets import Served, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Served]:
    """One for all tests, each of which is a tenant of its own."""
    url = databases.new("sqlite")
    root = tmp_path_factory.mktemp("root")
    with served(Settings(root=root, database_url=url, poll_seconds=0.05, min_free_mib=0)) as running:
        yield running
    databases.give_back(url)


def test_both_clients_have_the_same_methods() -> None:
    awaited, blocked = AsyncInfluencerAIClient(), InfluencerAIClient()
    for name in ("datasets", "lora_configs", "jobs"):
        found, expected = methods(getattr(blocked, name)), methods(getattr(awaited, name))
        assert found == expected
    assert methods(blocked) == methods(awaited)


def test_the_client_loads_nothing_heavy() -> None:
    heavy = {"PIL", "click", "fastapi", "influencerai.dataset", "numpy", "ray", "rich", "sqlalchemy", "torch"}
    code = f"import sys, influencerai; influencerai.InfluencerAIClient(); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_the_blocking_client_works_where_a_loop_runs(server: Served, tenant: str) -> None:
    with InfluencerAIClient(server.url, tenant_id=tenant, on_warning=lambda text: None) as client:
        made = [client.lora_configs.create(name=f"C{number}", model_name="sd15").id for number in range(3)]
        for config in client.lora_configs.list(page_size=1, sort_order="asc"):
            assert config.id == made[0]
            break
        assert client.lora_configs.list().total == 3


def test_what_must_be_awaited_is_no_callback_of_the_blocking_client(server: Served, tenant: str) -> None:
    async def hear(_: object) -> None:
        await asyncio.sleep(0)

    with InfluencerAIClient(server.url, tenant_id=tenant, on_warning=lambda text: None) as client:
        id = submit(client).id
        with pytest.raises(RuntimeError, match="can await nothing"):
            client.jobs.wait_for_completion(id, on_progress=hear)


async def test_a_callback_of_the_awaited_client_may_be_a_coroutine(server: Served, tenant: str) -> None:
    seen: list[int] = []

    async def hear(event: JobEvent) -> None:
        await anyio.sleep(0.01)
        seen.append(event.seq)

    async with AsyncInfluencerAIClient(server.url, tenant_id=tenant, on_warning=lambda text: None) as client:
        dataset = await client.datasets.create(path="data/a")
        config = await client.lora_configs.create(name="A", model_name="sd15")
        job = await client.jobs.create(dataset_id=dataset.id, lora_config_id=config.id)
        await client.jobs.update(job.id, status="completed", result={})
        await client.jobs.wait_for_completion(job.id, on_progress=hear)
    assert seen == [1, 2]


async def test_a_warning_is_about_the_users_own_line(server: Served, tenant: str) -> None:
    with (
        InfluencerAIClient(server.url, tenant_id=tenant) as client,
        pytest.warns(UserWarning, match="no folder") as blocked,
    ):
        client.datasets.create(path="not/there")
    async with AsyncInfluencerAIClient(server.url, tenant_id=tenant) as client:
        with pytest.warns(UserWarning, match="no folder") as awaited:
            await client.datasets.create(path="not/there/either")
    for heard in (*blocked, *awaited):
        assert "There is no folder not/there" in str(heard.message)
        assert heard.filename == __file__


def methods(resource: object) -> dict[str, list[str]]:
    """Names of the public methods, and of their arguments."""
    found = {name: getattr(resource, name) for name in dir(resource) if not name.startswith("_")}
    return {
        name: [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
        for name, method in found.items()
        if callable(method)
    }


def test_datasets_from_folder_to_deletion(
    server: Served, client: InfluencerAIClient, tenant: str, tmp_path: Path
) -> None:
    dataset = client.datasets.create(path=f"data/{tenant}", meta={"triggerWord": "ohwx", "snake_case": [1, None]})
    assert (dataset.status, dataset.meta) == ("pending", {"triggerWord": "ohwx", "snake_case": [1, None]})
    source = write_pictures(tmp_path / "mine")
    (source / "README.txt").write_text("no caption")
    (source / ".hidden.png").write_bytes(b"no image")
    answer = client.datasets.upload(dataset.id, source)
    assert (len(answer.added), answer.captions, answer.status) == (6, 3, "ready")
    assert sorted(path.name for path in (server.service.settings.root / "data" / tenant).glob("*.*g")) == [
        "0.png",
        "1.png",
        "2.png",
    ]
    assert len(client.datasets.upload(dataset.id, source).unchanged) == 6

    found = client.datasets.get(dataset.id)
    assert isinstance(found, Dataset)
    assert found.status == "ready"
    images = list(client.datasets.images(dataset.id, page_size=2))
    assert [(image.path, image.caption) for image in images][2] == ("2.png", "ohwx, scene 2")
    assert client.datasets.images(dataset.id).total == 3
    assert client.datasets.write_caption(dataset.id, "2.png", "ohwx, waving").caption == "ohwx, waving"
    assert client.datasets.thumbnail(dataset.id, "2.png")[8:12] == b"WEBP"
    assert client.datasets.report(dataset.id, refresh=True)["imageCount"] == 3
    assert client.datasets.update(dataset.id, meta={"a": 1}).meta == {"a": 1}
    assert client.datasets.set_status(dataset.id, "failed").status == "failed"
    assert [item.id for item in client.datasets.list(status="failed", kind="lora-training")] == [dataset.id]
    assert client.datasets.list(status="ready").total == 0
    client.datasets.delete(dataset.id)
    with pytest.raises(NotFoundError, match=f"Dataset {dataset.id} not found") as caught:
        client.datasets.get(dataset.id)
    assert caught.value.status_code == 404


def test_a_folder_goes_up_with_the_folders_in_it(
    server: Served, client: InfluencerAIClient, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_pictures(tmp_path / "mine" / "10_ohwx woman", count=2).parent
    write_pictures(source / "5_ohwx body", count=1)
    (source / "5_ohwx body" / "0.txt").rename(source / "5_ohwx body" / "0.CAPTION")
    (source / "5_ohwx body" / "0_sd.npz").write_bytes(b"cache")
    (source / "10_ohwx woman" / "0-masklabel.png").write_bytes((source / "5_ohwx body" / "0.png").read_bytes())
    write_pictures(source / "out" / "samples", count=1)
    (source / "out" / ".influencerai-run").write_text("job")
    (source / ".DS_Store").write_bytes(b"x")
    for name in ("captions.yaml", "5_ohwx body/0.md", "train.parquet", "README.md", "lost.txt"):
        (source / name).write_text("smiling")
    dataset = client.datasets.create(path=f"data/{tenant}")
    monkeypatch.setattr("influencerai.client.upload.MOST_FILES", 3)
    answer = client.datasets.upload(dataset.id, source)
    assert {image.path for image in client.datasets.images(dataset.id)} == {
        *("10_ohwx woman/0.png", "10_ohwx woman/1.png", "5_ohwx body/0.png")
    }
    assert "5_ohwx body/0.caption" in answer.added
    reasons = {file.name: file.reason for file in answer.skipped}
    assert reasons.keys() == {
        *(".DS_Store", "5_ohwx body/0_sd.npz", "10_ohwx woman/0-masklabel.png", "out/"),
        *("captions.yaml", "5_ohwx body/0.md", "train.parquet", "README.md", "lost.txt"),
    }
    assert [text.partition(":")[0] for text in answer.warnings] == [
        "5_ohwx body/0.md, captions.yaml, train.parquet",
        "lost.txt",
        "1 mask left out",
    ]
    assert reasons["out/"] == "A training wrote this folder."
    assert "asks" in reasons["10_ohwx woman/0-masklabel.png"]
    assert [(file.name, file.stored_as) for file in answer.renamed] == [
        ("5_ohwx body/0.CAPTION", "5_ohwx body/0.caption")
    ]


def test_every_format_that_is_read_arrives_and_has_a_thumbnail(
    client: InfluencerAIClient, tenant: str, tmp_path: Path
) -> None:
    register_heif_opener()
    formats = {"heic": "HEIF", "avif": "AVIF", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "jpg": "JPEG", "webp": "WEBP"}
    (tmp_path / "mine").mkdir()
    for place, (suffix, format_) in enumerate(formats.items()):
        picture = Image.linear_gradient("L").rotate(90 * (place % 4)).resize((96, 64 + place)).convert("RGB")
        picture.save(tmp_path / "mine" / f"{place}.{suffix}", format_)
    dataset = client.datasets.create(path=f"data/{tenant}")
    answer = client.datasets.upload(dataset.id, tmp_path / "mine")
    assert answer.added == tuple(f"{place}.{suffix}" for place, suffix in enumerate(formats))
    assert (answer.skipped, answer.warnings, answer.status) == ((), (), "ready")
    images = list(client.datasets.images(dataset.id))
    assert [(image.usable, image.width, image.height) for image in images] == [
        (True, 96, 64 + place) for place in range(len(formats))
    ]
    for image in images:
        thumbnail = Image.open(io.BytesIO(client.datasets.thumbnail(dataset.id, image.path)))
        assert (thumbnail.format, thumbnail.width) == ("WEBP", 96)


def test_a_large_folder_goes_up_in_portions(
    client: InfluencerAIClient, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("influencerai.client.upload.MOST_FILES", 4)
    dataset = client.datasets.create(path=f"data/{tenant}")
    answer = client.datasets.upload(dataset.id, write_pictures(tmp_path / "mine", count=5))
    assert (len(answer.added), answer.captions) == (10, 5)


def test_an_upload_that_is_refused_names_the_files(client: InfluencerAIClient, tenant: str, tmp_path: Path) -> None:
    dataset = client.datasets.create(path=f"data/{tenant}")
    with pytest.raises(ValidationError, match="There are no images in"):
        client.datasets.upload(dataset.id, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValidationError) as caught:
        client.datasets.upload(dataset.id, tmp_path)
    assert caught.value.errors
    assert caught.value.status_code == 400


def test_configs_and_the_default_one(server: Served, connect: Connect) -> None:
    heard: list[str] = []
    client = connect(server.url, on_warning=heard.append)
    assert client.lora_configs.default() is None
    config = LoraConfig(name="Portrait", model_name="sd15", network_dim=8, meta={"seed": 7})
    first = client.lora_configs.create(config, is_default=True)
    assert first.config == config.model_copy(update={"is_default": True})
    assert any("networkAlpha 16 exceeds networkDim 8" in text for text in heard)
    second = client.lora_configs.create(name="Second", model_name="sd15", network_alpha=8)
    assert client.lora_configs.default() == client.lora_configs.get(first.id)
    assert client.lora_configs.set_default(second.id).is_default
    assert client.lora_configs.default() == client.lora_configs.get(second.id)
    with pytest.raises(ConflictError) as taken:
        client.lora_configs.create(name="Second", model_name="sdxl")
    assert (taken.value.existing_id, taken.value.status_code) == (second.id, 409)
    with pytest.raises(ValidationError) as misspelt:
        client.lora_configs.create(name="x", model_name="sd15", learningrate=1e-4, epochs=0)
    assert set(misspelt.value.errors) == {"learningrate", "epochs"}
    changed = client.lora_configs.update(second.id, description="A try", network_dim=4, network_alpha=2)
    assert (changed.description, changed.network_dim) == ("A try", 4)
    assert client.lora_configs.update(second.id, description=None).description is None
    assert [item.name for item in client.lora_configs.list(sort_by="name", sort_order="asc")] == ["Portrait", "Second"]
    heard.clear()
    client.lora_configs.delete(second.id)
    assert heard == ["Deleted the default LoRA configuration. Consider setting a new default."]


def test_a_job_from_dry_run_to_deletion(server: Served, client: InfluencerAIClient, tenant: str) -> None:
    write_pictures(server.service.settings.root / "data" / tenant)
    dataset = client.datasets.create(path=f"data/{tenant}")
    config = client.lora_configs.create(name="Portrait", model_name="sd15", epochs=4)
    checked = client.jobs.dry_run(dataset_id=dataset.id, lora_config_id=config.id)
    assert checked["plan"]["epochs"] == 4
    assert client.jobs.list().total == 0
    job = client.jobs.create(dataset_id=dataset.id, lora_config_id=config.id, priority=7)
    assert (job.status, job.payload["priority"]) == ("pending", 7)
    detail = client.jobs.get(job.id)
    assert isinstance(detail, JobDetail)
    assert detail.training is not None
    assert detail.training.config["name"] == "Portrait"
    with pytest.raises(RefusedError, match="1 active job"):
        client.datasets.delete(dataset.id)

    assert client.jobs.update(job.id, status="running").result == {"progress": {"currentEpoch": 0, "totalEpochs": 4}}
    with pytest.raises(ConflictError):
        client.jobs.delete(job.id)
    ended = client.jobs.update(job.id, status="failed", result={"error": "no"}, cost_tok=3)
    assert (ended.status, ended.cost_tok) == ("failed", 3)
    assert [event.type for event in client.jobs.events(job.id)][-1] == "status"
    assert client.jobs.metrics(job.id, points=10) == ()
    assert client.jobs.artifacts(job.id) == ()
    again = client.jobs.retry(job.id)
    assert again.retry_of == job.id
    assert client.jobs.cancel(again.id).status == "failed"
    assert [item.id for item in client.jobs.list(status="cancelled")] == [again.id]
    assert sum(day.failed for day in client.jobs.series(window="day", buckets=2).data) == 2
    client.jobs.delete(again.id)
    assert [item.id for item in client.jobs.list(sort_order="asc")] == [job.id]


def test_events_come_page_by_page(client: InfluencerAIClient) -> None:
    job = submit(client)
    for epoch in range(5):
        client.jobs.update(job.id, status="running", result={"progress": {"currentEpoch": epoch, "totalEpochs": 5}})
    numbers = [event.seq for event in client.jobs.events(job.id)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 6
    assert [event.seq for event in client.jobs.events(job.id, after=3)] == numbers[3:]


def test_a_list_that_is_deleted_while_it_is_read_is_read_whole(client: InfluencerAIClient) -> None:
    made = {client.lora_configs.create(name=f"C{number}", model_name="sd15", network_alpha=1).id for number in range(7)}
    listing = client.lora_configs.list(page_size=2)
    assert listing.total == 7
    seen = []
    for config in listing:
        seen.append(config.id)
        client.lora_configs.delete(config.id)
    assert sorted(seen) == sorted(made)
    assert listing.total == 0


def test_a_list_that_grows_while_it_is_read_shows_nothing_twice(client: InfluencerAIClient) -> None:
    made = [client.lora_configs.create(name=f"C{number}", model_name="sd15", network_alpha=1).id for number in range(5)]
    seen = []
    for number, config in enumerate(client.lora_configs.list(page_size=2)):
        seen.append(config.id)
        if number < 5:
            client.lora_configs.create(name=f"N{number}", model_name="sd15", network_alpha=1)
    assert len(seen) == len(set(seen))
    assert set(made) <= set(seen)


def test_another_tenants_things_are_not_there(server: Served, client: InfluencerAIClient, connect: Connect) -> None:
    job = submit(client)
    other = connect(server.url, tenant_id=BOB)
    for ask in (other.jobs.get, other.jobs.cancel, other.jobs.retry, other.jobs.delete, other.jobs.artifacts):
        with pytest.raises(NotFoundError, match="not found"):
            ask(job.id)
    assert other.jobs.list().total == 0
    for resource in (client.jobs, client.datasets, client.lora_configs):
        with pytest.raises(NotFoundError):
            resource.get(UNKNOWN_ID)


@pytest.mark.parametrize("id", ["", ".", ".."])
def test_what_could_lead_elsewhere_is_no_id(client: InfluencerAIClient, id: str) -> None:
    with pytest.raises(ValidationError, match="is no id"):
        client.jobs.delete(id)


def test_an_id_with_a_path_in_it_stays_one_part(client: InfluencerAIClient) -> None:
    with pytest.raises(NotFoundError):
        client.jobs.get("../datasets")
    with pytest.raises(NotFoundError, match="Job series not found"):
        client.jobs.artifacts("series")


def test_who_does_not_say_who_it_is_is_refused(server: Served, connect: Connect) -> None:
    with pytest.raises(AuthenticationError, match="x-tenant-id") as caught:
        connect(server.url, tenant_id=None).jobs.list().total  # noqa: B018 - it asks
    assert caught.value.status_code == 401


@pytest.mark.parametrize(
    "options",
    [{"tenant_id": "a\r\nx-other: b"}, {"api_key": "ä"}, {"api_key": ""}, {"tenant_id": " "}, {"base_url": "server"}],
)
def test_what_could_not_be_sent_is_refused_at_once(options: dict[str, Any]) -> None:
    for kind in (InfluencerAIClient, AsyncInfluencerAIClient):
        with pytest.raises(ValidationError) as caught:
            kind(**options)
        assert set(caught.value.errors) == set(options)


def test_production_wants_a_key_and_limits_are_waited_for(settings: Settings, kind: Kind) -> None:
    async def make(tenant: str | None) -> str:
        store = Store(settings.database_url)
        try:
            return (await KeyService(store).create(tenant=tenant, name="laptop"))[1]
        finally:
            await store.database.close()

    secret, worker = anyio.run(make, "studio"), anyio.run(make, None)
    settings.root.mkdir()
    limited = settings.model_copy(update={"auth": "production", "active_jobs_per_tenant": 1, "writes_per_minute": 1000})
    with served(limited) as server:
        with opened(kind, server.url, api_key=secret) as client:
            job = submit(client)
            assert job.tenant_id == "studio"
        with opened(kind, server.url, api_key=worker, tenant_id="studio") as client:
            assert client.jobs.update(job.id, status="running").status == "running"
            with pytest.raises(PermissionDeniedError):
                client.jobs.cancel(job.id)
        with opened(kind, server.url, api_key="iak_unknown") as client, pytest.raises(AuthenticationError):
            client.jobs.get(job.id)
        with opened(kind, server.url, api_key=secret, retries=0) as client:
            with pytest.raises(TooManyError, match="1 active jobs") as caught:
                client.jobs.create(dataset_id=job.payload["datasetId"], lora_config_id=job.payload["loraConfigId"])
            assert caught.value.retry_after == 30


def test_the_address_holds_no_password_and_messages_show_none() -> None:
    for url in ("http://me:SECRET@server", "ftp://me:SECRET@server", "me:SECRET@server", "http://me:SECRET@[::1"):
        for kind in (InfluencerAIClient, AsyncInfluencerAIClient):
            with pytest.raises(ValidationError) as caught:
                kind(url)
            assert "SECRET" not in f"{caught.value} {caught.value.__cause__}"
            assert set(caught.value.errors) == {"base_url"}
    with pytest.raises(ValidationError, match="use api_key"):
        InfluencerAIClient("http://me@server")


def test_the_machines_that_train(server: Served, client: InfluencerAIClient) -> None:
    async def note(transaction: Transaction) -> None:
        node = Node(id="a" * 56, name="gpu-box-1", cpus=16, memory_gb=64)
        await transaction.nodes.note([NodeState(node=node)])
        await transaction.workers.greet("w", node="here")

    write(server.service.settings, note)
    found = client.cluster()
    assert [(node["name"], node["state"], node["memoryGb"]) for node in found["nodes"]] == [("gpu-box-1", "ready", 64)]
    assert found["workers"] == 1


def test_what_configurations_can_name(client: InfluencerAIClient) -> None:
    available = {entry.name: entry.family for entry in client.models() if entry.available}
    assert available["influencerai/tiny-avatars"] == "sd15"
    assert [preset.name for preset in client.presets()] == ["conservative", "balanced", "fast"]


def test_jobs_carry_metadata_and_a_configuration_of_their_own(client: InfluencerAIClient) -> None:
    dataset = client.datasets.create(path="data/none")
    config = LoraConfig(name="Own", model_name="influencerai/tiny-avatars", epochs=2, optimizer="Lion")
    job = client.jobs.create(dataset_id=dataset.id, lora_config=config, metadata={"orderId": "A-17"})
    client.jobs.create(dataset_id=dataset.id, lora_config={"name": "Own", "model_name": "influencerai/tiny-avatars"})
    assert (job.lora_config_name, job.metadata) == ("Own", {"orderId": "A-17"})
    assert [found.id for found in client.jobs.list(metadata={"orderId": "A-17"}, dataset_id=dataset.id)] == [job.id]
    assert client.jobs.update(job.id, metadata={"orderId": "A-18"}).metadata == {"orderId": "A-18"}
    assert client.jobs.list(metadata={"orderId": "A-17"}).total == 0
    assert client.jobs.get(job.id).training is not None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("model", ModelError), ("dataset", DatasetError), ("out_of_memory", OutOfMemoryError),
        ("broken", TrainingError), ("too_many", TrainingError), (None, TrainingError),
    ],
)  # fmt: skip
def test_a_failed_job_raises_the_error_of_its_code(
    code: Any, kind: type[Exception], client: InfluencerAIClient
) -> None:
    dataset = client.datasets.create(path="data/none")
    job = client.jobs.create(dataset_id=dataset.id, lora_config={"name": "Own", "model_name": "sd15"})
    result = {"error": "No. Do it.", "remedy": "Do it.", **({"code": code} if code else {})}
    client.jobs.update(job.id, status="failed", result=result)
    with pytest.raises(TrainingError, match=r"^No\. Do it\.$") as caught:
        client.jobs.wait_for_completion(job.id)
    assert isinstance(caught.value, kind)
    assert (caught.value.message, caught.value.remedy, caught.value.failure) == ("No.", "Do it.", result)


def test_readiness_is_told_and_not_raised(client: InfluencerAIClient) -> None:
    found = client.readiness()
    assert found["status"] == "ready"
    assert found["checks"]["database"]["detail"] == "SQLite"
