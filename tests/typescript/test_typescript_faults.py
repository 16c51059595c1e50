"""The TypeScript SDK against a network that loses answers, a server that is started again, and files that lie."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from influencerai.client import InfluencerAIClient
from influencerai.service.keys import KeyService
from influencerai.settings import Settings
from influencerai.store import Store
from tests.client.filled import publish, submit
from tests.client.proxy import Proxy, proxied
from tests.scripted import END, ENDED, JOB, PROGRESS, Reply, scripted, sent, told
from tests.serve.sockets import Served, served
from tests.typescript.node import Client, Project, SdkError

DATA = bytes(range(256)) * 4096
FOLDER = "data/loras/portrait"
LEFT = f".influencerai-{hashlib.sha256(DATA).hexdigest()}.download"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("typescript")]


@pytest.fixture
def server(settings: Settings) -> Iterator[Served]:
    with served(settings) as running:
        yield running


@pytest.fixture
def proxy(server: Served) -> Iterator[Proxy]:
    with proxied(server.port) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy, project: Project) -> Iterator[Client]:
    with project.client(proxy.url) as found:
        yield found


@pytest.fixture
def worker(server: Served) -> Iterator[InfluencerAIClient]:
    """Who reports on jobs, past the proxy."""
    with reporter(server) as found:
        yield found


def reporter(server: Served) -> InfluencerAIClient:
    return InfluencerAIClient(server.url, tenant_id="tenant_demo", on_warning=lambda text: None)


def report(worker: InfluencerAIClient, id: str, epoch: int) -> None:
    worker.jobs.update(id, status="running", result={"progress": {"currentEpoch": epoch, "totalEpochs": 9}})


def lose_next_answer(proxy: Proxy) -> None:
    proxy.cut()
    time.sleep(0.2)  # until the client has noticed, which else sends into a dead connection
    proxy.cuts = [0]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Requests


def test_answers_are_lost(client: Client, proxy: Proxy) -> None:
    """What is made is made once, what is deleted is gone, and what may have changed is not changed again."""
    client.call("readiness")
    lose_next_answer(proxy)
    dataset = client.call("datasets.create", {"kind": "lora-training", "path": "data/a"})
    assert proxy.requests(b"POST /datasets ") == 2
    assert [item["id"] for item in client.call("datasets.list")] == [dataset["id"]]
    lose_next_answer(proxy)
    with pytest.raises(SdkError, match=r"^UnreachableError: The server at .* cannot be reached") as lost:
        client.call("datasets.update", dataset["id"], {"meta": {"a": 1}})
    assert "influencerai serve" in lost.value.told["remedy"]
    assert proxy.requests(b"PATCH ") == 1
    assert client.call("datasets.get", dataset["id"])["meta"] == {"a": 1}
    lose_next_answer(proxy)
    client.call("datasets.delete", dataset["id"])
    assert proxy.requests(b"DELETE ") == 2
    with pytest.raises(SdkError, match=r"^NotFoundError"):
        client.call("datasets.delete", dataset["id"])


def test_a_server_that_is_not_there_is_given_up(project: Project) -> None:
    with proxied(1) as gone:
        url = gone.url
    with project.client(url, retries=2) as client:
        begun = time.monotonic()
        with pytest.raises(SdkError, match=r"^UnreachableError: .*ECONNREFUSED"):
            client.call("datasets.update", "a", {"meta": {}})
        assert 0.5 < time.monotonic() - begun < 30


def test_a_busy_server_is_asked_again_when_it_says(project: Project) -> None:
    later, now, never = {"retry-after": "1"}, {"retry-after": "0"}, {"retry-after": "9999"}
    begun = time.monotonic()
    with (
        scripted((429, later, b"{}"), (503, now, b"{}"), (502, {}, b""), (200, {}, b"{}")) as (url, asked),
        project.client(url) as client,
    ):
        assert client.call("datasets.get", "a") == {}
    assert asked == ["GET /datasets/a"] * 4
    assert time.monotonic() - begun > 1.5
    with scripted((429, now, b"{}"), (503, now, b"{}")) as (url, asked), project.client(url) as client:
        with pytest.raises(SdkError, match=r"^StoreError") as refused:
            client.call("datasets.update", "a", {"meta": {}})
        assert refused.value.told["statusCode"] == 503
    assert asked == ["PATCH /datasets/a"] * 2
    with scripted((429, never, b"{}")) as (url, _), project.client(url) as client:
        with pytest.raises(SdkError, match=r"^TooManyError") as late:
            client.call("datasets.get", "a")
        assert late.value.told["retryAfter"] == 9_999_000


def test_what_an_outage_may_have_let_through_is_gone_and_not_missing(project: Project) -> None:
    now = {"retry-after": "0"}
    gone: Reply = (404, {}, b"{}")
    for outage in (502, 503, 504):
        with scripted((outage, now, b""), gone) as (url, asked), project.client(url) as client:
            client.call("datasets.delete", "a")
        assert asked == ["DELETE /datasets/a"] * 2
    missing = pytest.raises(SdkError, match=r"^NotFoundError")
    with scripted((429, now, b""), gone) as (url, _), project.client(url) as client, missing:
        client.call("datasets.delete", "a")


def test_what_is_no_server_of_ours_is_named(project: Project) -> None:
    page: Reply = (200, {}, b"<html>")
    moved = (302, {"location": "/elsewhere"}, b"")
    with scripted(page, page, (404, {}, b"<html>"), moved) as (url, asked), project.client(url) as client:
        for method in ("jobs.list", "readiness"):
            with pytest.raises(SdkError, match=r"^InfluencerAIError: .* is not understood: it is no JSON"):
                client.call(method)
        with pytest.raises(SdkError, match=r"^NotFoundError: GET .* was answered with 404"):
            client.call("datasets.get", "a")
        with pytest.raises(SdkError, match="was answered with 302"):
            client.call("datasets.get", "a")
    assert asked[-1] == "GET /datasets/a"


def test_production_wants_a_key_and_says_when_to_come_back(settings: Settings, project: Project) -> None:
    async def make() -> str:
        store = Store(settings.database_url)
        try:
            return (await KeyService(store).create(tenant="studio", name="laptop"))[1]
        finally:
            await store.database.close()

    as_studio = {"tenantId": "studio", "apiKey": anyio.run(make), "retries": 0}
    limited = settings.model_copy(update={"auth": "production", "active_jobs_per_tenant": 1})
    with served(limited) as server, project.client(server.url, **as_studio) as client:
        dataset = client.call("datasets.create", {"kind": "lora-training", "path": "data/a"})
        config = client.call("loraConfigs.create", {"name": "Portrait", "modelName": "sd15"})
        draft = {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": config["id"]}}
        assert client.call("jobs.create", draft)["tenantId"] == "studio"
        with pytest.raises(SdkError, match=r"^TooManyError: .*1 active jobs") as late:
            client.call("jobs.create", draft)
        assert late.value.told["retryAfter"] == 30_000
        with project.client(server.url, apiKey="iak_unknown") as stranger:
            with pytest.raises(SdkError, match=r"^AuthenticationError") as refused:
                stranger.call("jobs.list")
            assert refused.value.told["statusCode"] == 401


# Waiting


def test_a_wait_survives_cut_streams_and_a_server_that_is_started_again(settings: Settings, project: Project) -> None:
    options = {"onProgress": True, "pollInterval": 100, "timeout": 60_000}
    with (
        ThreadPoolExecutor(1) as pool,
        served(settings) as first,
        proxied(first.port) as proxy,
        reporter(first) as worker,
        project.client(proxy.url) as client,
    ):

        def seen(epoch: int) -> bool:
            return bool(client.heard) and client.heard[-1]["result"]["progress"]["currentEpoch"] == epoch

        job = submit(worker).id
        waiting = pool.submit(client.call, "jobs.waitForCompletion", job, options)
        report(worker, job, 1)
        until(lambda: seen(1))
        proxy.cut()
        report(worker, job, 2)
        until(lambda: seen(2))
        proxy.upstream = None
        first.stop()
        time.sleep(1.5)
        with served(settings) as second, reporter(second) as other_worker:
            proxy.upstream = second.port
            report(other_worker, job, 3)
            until(lambda: seen(3))
            other_worker.jobs.update(job, status="completed", result={"loraPath": "a"})
            ended = waiting.result(60)
            epochs = [found["result"]["progress"]["currentEpoch"] for found in client.heard]
            numbers = [event["seq"] for event in client.call("jobs.follow", job)]
    assert (ended["status"], ended["result"]) == ("completed", {"loraPath": "a"})
    assert epochs == [0, 1, 2, 3]
    assert numbers == list(range(1, len(numbers) + 1))
    assert re.search(rb"last-event-id: [1-9]", bytes(proxy.asked), re.IGNORECASE)


def test_where_no_stream_comes_through_it_asks_again_and_again(project: Project) -> None:
    """The streams are a page of some proxy's, damaged, and refused; what is asked for is true."""
    page: Reply = (200, {"content-type": "text/html"}, b"<html>\n\n")
    broken: Reply = (200, {"content-type": "text/event-stream"}, b'data: {"seq": "one"}\n\n')
    refused: Reply = (503, {}, b"")
    rounds = (page, told(), sent(JOB), broken, told(PROGRESS), sent(JOB), refused, told(END), sent(ENDED))
    with scripted(*rounds) as (url, asked), project.client(url) as client:
        waiting = {"onProgress": True, "pollInterval": 50}
        assert client.call("jobs.waitForCompletion", "j", waiting)["result"] == {"loraPath": "a"}
        assert [found["result"]["progress"]["currentEpoch"] for found in client.heard] == [1]
    assert [line.removeprefix("GET /jobs/j") for line in asked] == [
        *("/events", "/events?after=0&take=1000", ""),
        *("/events", "/events?after=0&take=1000", ""),
        *("/events", "/events?after=1&take=1000", ""),
    ]


def test_a_stream_that_is_held_back_is_not_waited_for_again(project: Project) -> None:
    held: Reply = (200, {"content-type": "text/event-stream", "content-length": "100"}, b"")
    rounds = (held, told(), sent(JOB), told(PROGRESS), told(END), sent(ENDED))
    with scripted(*rounds) as (url, asked), project.client(url) as client:
        assert client.call("jobs.waitForCompletion", "j", {"pollInterval": 50})["status"] == "completed"
    assert asked.count("GET /jobs/j/events") == 1


def test_a_wait_ends_in_time_and_with_patience(client: Client, worker: InfluencerAIClient, proxy: Proxy) -> None:
    job = submit(worker).id
    begun = time.monotonic()
    with pytest.raises(SdkError, match=r"^TimedOutError: .* has not ended within 1 seconds"):
        client.call("jobs.waitForCompletion", job, {"timeout": 1_000, "pollInterval": 60_000})
    assert 1 <= time.monotonic() - begun < 30
    proxy.upstream = None
    proxy.cut()
    begun = time.monotonic()
    with pytest.raises(SdkError, match=r"^UnreachableError"):
        client.call("jobs.follow", job, {"patience": 500, "pollInterval": 100})
    assert 0.5 < time.monotonic() - begun < 30


def test_a_stream_that_is_left_is_closed(worker: InfluencerAIClient, server: Served, project: Project) -> None:
    job = submit(worker).id
    text = f"""
import {{ InfluencerAIClient }} from "@influencerai/sdk";
const client = new InfluencerAIClient({{ baseUrl: "{server.url}", tenantId: "tenant_demo" }});
for await (const event of client.jobs.follow("{job}")) {{
  console.log(event.type);
  break;
}}
"""
    assert project.run(project.write("left.mts", text)) == ("status\n", "")  # else it would not end
    until(lambda: server.service.event_streams.open_streams == 0)


# Downloads


@pytest.fixture
def published(settings: Settings, worker: InfluencerAIClient) -> str:
    """The id of a job with two files."""
    job = submit(worker).id
    publish(settings, {f"{FOLDER}/p-final.safetensors": DATA, f"{FOLDER}/samples/e1.png": b"png"})
    return job


def test_files_are_fetched_once(published: str, proxy: Proxy, client: Client, tmp_path: Path) -> None:
    to = tmp_path / "new" / "here"
    found = client.call("jobs.download", published, {"to": str(to)})
    assert found == [str(to / "p-final.safetensors"), str(to / "e1.png")]
    assert ((to / "p-final.safetensors").read_bytes(), (to / "e1.png").read_bytes()) == (DATA, b"png")
    asked = proxy.requests(b"/artifacts/")
    assert client.call("jobs.download", published, {"to": str(to)}) == found
    assert proxy.requests(b"/artifacts/") == asked
    (to / "p-final.safetensors").write_bytes(b"mine")
    with pytest.raises(SdkError, match=r"^ConflictError: .* other content"):
        client.call("jobs.download", published, {"to": str(to)})
    assert (to / "p-final.safetensors").read_bytes() == b"mine"
    assert client.call("jobs.download", published, {"to": str(to), "kind": "lora", "replace": True}) == found[:1]
    assert (to / "p-final.safetensors").read_bytes() == DATA
    one = tmp_path / "one"
    assert client.call("jobs.download", published, {"to": str(one), "names": ["e1.png"]}) == [str(one / "e1.png")]
    with pytest.raises(SdkError, match=r"^NotFoundError: .* no file x\.png"):
        client.call("jobs.download", published, {"to": str(to), "names": ["x.png"]})
    assert sorted(path.name for path in to.iterdir()) == ["e1.png", "p-final.safetensors"]
    assert base64.b64decode(client.call("jobs.artifact", published, "e1.png")) == b"png"


def test_a_cut_download_goes_on_where_it_stopped(published: str, proxy: Proxy, client: Client, tmp_path: Path) -> None:
    proxy.cuts = [300_000, 300_000, 100]
    (path,) = client.call("jobs.download", published, {"to": str(tmp_path), "kind": "lora"})
    assert Path(path).read_bytes() == DATA
    begins = [int(found) for found in re.findall(rb"range: bytes=(\d+)-", bytes(proxy.asked), re.IGNORECASE)]
    assert begins == sorted(begins)  # what had arrived but was not yet read when it was cut comes again
    assert 0 < begins[0] < 300_000
    assert proxy.cuts == []
    assert [found.name for found in tmp_path.glob("*p-final*")] == ["p-final.safetensors"]
    assert list(tmp_path.glob(".influencerai-*")) == []


def test_a_later_call_goes_on_too_and_damage_is_noticed(
    published: str, proxy: Proxy, client: Client, tmp_path: Path
) -> None:
    part, path = tmp_path / LEFT, tmp_path / "p-final.safetensors"
    for damaged in (DATA[:1000], b"x" * 1000, DATA + b"x", b"x" * len(DATA)):
        path.unlink(missing_ok=True)
        part.write_bytes(damaged)
        assert client.call("jobs.download", published, {"to": str(tmp_path), "kind": "lora"}) == [str(path)]
        assert path.read_bytes() == DATA
        assert list(tmp_path.glob(".influencerai-*")) == []
    assert b"range: bytes=1000-" in bytes(proxy.asked).lower()


FILE = {"name": "a.bin", "kind": "lora", "sha256": hashlib.sha256(DATA).hexdigest(), "size": len(DATA)}


def test_downloads_at_once_leave_each_other_alone_and_a_killed_one_is_gone_on_with(
    project: Project, tmp_path: Path
) -> None:
    listed, options, path = sent({"data": [FILE]}), {"to": str(tmp_path)}, tmp_path / "a.bin"
    stuck: Reply = (200, {"content-length": str(len(DATA))}, DATA[:300_000])
    rest: Reply = (206, {"content-range": f"bytes 300000-{len(DATA) - 1}/{len(DATA)}"}, DATA[300_000:])
    with (
        scripted(listed, stuck, listed, (200, {}, DATA), listed, rest) as (url, _),
        ThreadPoolExecutor(1) as pool,
        project.client(url) as first,
        project.client(url) as second,
    ):
        cut_off = pool.submit(first.call, "jobs.download", "j", options)
        until(lambda: [part.stat().st_size for part in tmp_path.iterdir()] == [300_000])
        assert second.call("jobs.download", "j", options) == [str(path)]
        assert path.read_bytes() == DATA
        (part,) = tmp_path.glob(".influencerai-*")
        assert part.read_bytes() == DATA[:300_000]
        first.process.kill()
        with pytest.raises(AssertionError, match="has ended"):
            cut_off.result(30)
        path.unlink()
        assert second.call("jobs.download", "j", options) == [str(path)]
        assert path.read_bytes() == DATA
        assert list(tmp_path.iterdir()) == [path]


def test_downloads_at_once_in_one_process_all_end_well(
    published: str, proxy: Proxy, project: Project, tmp_path: Path
) -> None:
    text = f"""
import {{ InfluencerAIClient }} from "@influencerai/sdk";
const client = new InfluencerAIClient({{ baseUrl: "{proxy.url}", tenantId: "tenant_demo" }});
const options = {{ to: {json.dumps(str(tmp_path / "to"))}, kind: "lora" }} as const;
console.log((await Promise.all([1, 2, 3, 4].map(() => client.jobs.download("{published}", options)))).flat().join(","));
"""
    path = tmp_path / "to" / "p-final.safetensors"
    proxy.cuts = [300_000, 200_000, 100_000]
    assert project.run(project.write("at-once.mts", text)) == (",".join([str(path)] * 4) + "\n", "")
    assert path.read_bytes() == DATA
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_not_overwritten(project: Project, tmp_path: Path) -> None:
    path, content = tmp_path / "a.bin", b"mine"
    script: tuple[Reply, ...] = (sent({"data": [FILE]}), (200, {}, DATA))

    def appear(asked: str) -> None:
        if asked.endswith("a.bin"):
            path.write_bytes(content)

    with scripted(*script, meanwhile=appear) as (url, _), project.client(url) as client:
        with pytest.raises(SdkError, match=r"^ConflictError: .* other content"):
            client.call("jobs.download", "j", {"to": str(tmp_path)})
        assert path.read_bytes() == b"mine"
    path.unlink()
    (tmp_path / LEFT).unlink()  # whole, for who wants it to replace the other
    content = DATA
    with scripted(*script, meanwhile=appear) as (url, _), project.client(url) as client:
        assert client.call("jobs.download", "j", {"to": str(tmp_path)}) == [str(path)]
    assert list(tmp_path.iterdir()) == [path]


def test_another_name_of_a_part_keeps_its_bytes(published: str, client: Client, tmp_path: Path) -> None:
    (tmp_path / LEFT).write_bytes(DATA[:1000])
    (tmp_path / "kept").hardlink_to(tmp_path / LEFT)
    (path,) = client.call("jobs.download", published, {"to": str(tmp_path), "kind": "lora"})
    assert Path(path).read_bytes() == DATA
    assert (tmp_path / "kept").read_bytes() == DATA[:1000]


def test_a_link_in_the_folder_is_not_followed(published: str, client: Client, tmp_path: Path) -> None:
    outside, to = tmp_path / "outside", tmp_path / "to"
    outside.write_bytes(b"mine")
    to.mkdir()
    (to / LEFT).symlink_to(outside)
    (to / "p-final.safetensors").symlink_to(outside)
    options = {"to": str(to), "kind": "lora"}
    with pytest.raises(SdkError, match=r"^ConflictError"):
        client.call("jobs.download", published, options)
    (path,) = client.call("jobs.download", published, {**options, "replace": True})
    assert not Path(path).is_symlink()
    assert Path(path).read_bytes() == DATA
    assert outside.read_bytes() == b"mine"


def test_a_file_that_was_changed_on_the_server_never_gets_its_name(
    published: str, client: Client, settings: Settings, tmp_path: Path
) -> None:
    for other in (b"x" * len(DATA), b"short", DATA + b"long"):
        (settings.root / FOLDER / "p-final.safetensors").write_bytes(other)
        with pytest.raises(SdkError, match="damaged"):
            client.call("jobs.download", published, {"to": str(tmp_path / "to"), "kind": "lora"})
        assert list((tmp_path / "to").iterdir()) == []


def test_a_full_disk_or_a_bad_folder_is_said(published: str, client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SdkError, match="cannot be made"):
        client.call("jobs.download", published, {"to": str(tmp_path / "file")})
    (tmp_path / "to" / "p-final.safetensors").mkdir(parents=True)
    with pytest.raises(SdkError, match="cannot be written"):
        client.call("jobs.download", published, {"to": str(tmp_path / "to"), "kind": "lora", "replace": True})


@pytest.mark.parametrize("name", ["../evil", "..", "/etc/evil", "a\\b", ".hidden", "a\nb", "x" * 256, "a."])
def test_a_hostile_server_writes_nothing(name: str, project: Project, tmp_path: Path) -> None:
    file = {"name": name, "kind": "lora", "sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    listed: Reply = (200, {}, json.dumps({"data": [file]}).encode())
    with scripted(listed) as (url, _), project.client(url) as client, pytest.raises(SdkError, match="no safe name"):
        client.call("jobs.download", "j", {"to": str(tmp_path / "to")})
    assert [path for path in tmp_path.rglob("*") if path != tmp_path / "to"] == []
    assert not Path("/etc/evil").exists()
