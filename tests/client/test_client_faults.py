"""Both clients against a network that loses answers, a server that is started again, and files that lie."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from influencerai.client import InfluencerAIClient
from influencerai.client.download import checked_name
from influencerai.client.part import claimed_part
from influencerai.domain.job_log import JobArtifact, JobEvent
from influencerai.errors import (
    ConflictError,
    InfluencerAIError,
    NotFoundError,
    StoppedError,
    StoreError,
    TimedOutError,
    TooManyError,
    TrainingError,
    UnreachableError,
)
from influencerai.settings import Settings
from tests.client.both import Kind, opened
from tests.client.conftest import Connect
from tests.client.filled import publish, submit
from tests.client.proxy import Proxy, proxied
from tests.scripted import END, ENDED, JOB, PROGRESS, Reply, scripted, sent, told
from tests.serve.sockets import Served, served

DATA = bytes(range(256)) * 4096
FOLDER = "data/loras/portrait"


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """`work` in another thread, over by the end of the block."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:  # also where the block has failed, of which this may be the cause
        thread.join(60)
        assert not raised, raised
        assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def report(client: InfluencerAIClient, id: str, *epochs: int) -> None:
    for epoch in epochs:
        client.jobs.update(id, status="running", result={"progress": {"currentEpoch": epoch, "totalEpochs": 9}})


# Requests


def test_what_is_made_is_made_once_though_the_answer_is_lost(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.url)
    proxy.cuts = [0]
    dataset = client.datasets.create(path="data/a")
    assert proxy.requests(b"POST /datasets ") == 2
    assert [item.id for item in client.datasets.list()] == [dataset.id]


def test_what_is_deleted_is_gone_though_the_answer_is_lost(proxy: Proxy, connect: Connect) -> None:
    dataset = connect(proxy.url).datasets.create(path="data/a")
    client = connect(proxy.url)
    proxy.cuts = [0]
    client.datasets.delete(dataset.id)
    assert proxy.requests(b"DELETE ") == 2
    with pytest.raises(NotFoundError):
        client.datasets.delete(dataset.id)


@pytest.mark.slow
def test_what_an_outage_may_have_let_through_is_gone_and_not_missing(connect: Connect) -> None:
    for outage in (502, 503, 504):
        with busy((outage, "0"), (404, None)) as (url, asked):
            connect(url).datasets.delete("a")
        assert asked == ["DELETE"] * 2
    with busy((429, "0"), (404, None)) as (url, _), pytest.raises(NotFoundError):
        connect(url).datasets.delete("a")


def test_a_change_that_may_have_arrived_is_not_sent_again(proxy: Proxy, connect: Connect) -> None:
    dataset = connect(proxy.url).datasets.create(path="data/a")
    client = connect(proxy.url)
    proxy.cuts = [0]
    with pytest.raises(UnreachableError):
        client.datasets.update(dataset.id, meta={"a": 1})
    assert proxy.requests(b"PATCH ") == 1
    assert client.datasets.get(dataset.id).meta == {"a": 1}


def test_a_server_that_is_not_there_is_given_up_with_the_remedy(connect: Connect) -> None:
    with proxied(1) as proxy:
        url = proxy.url
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match=r"cannot be reached.*influencerai serve"):
        connect(url, retries=2).jobs.list().total  # noqa: B018 - it asks
    assert 0.5 < time.monotonic() - begun < 10


def test_what_is_no_server_of_ours_is_named(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("<html>")
    (tmp_path / "readyz").write_text("<html>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        client = connect(f"http://127.0.0.1:{other.server_port}")
        for ask in (lambda: client.jobs.list().total, client.readiness):
            with pytest.raises(InfluencerAIError, match="is not understood: it is no JSON"):
                ask()
        with pytest.raises(NotFoundError, match="was answered with 404"):
            client.datasets.get("a")
        other.shutdown()


class Busy(http.server.BaseHTTPRequestHandler):
    """Answers each request with the next of `script`: a status, and in how many seconds to come back."""

    script: list[tuple[int, str | None]]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.command)
        status, seconds = self.script.pop(0)
        self.send_response(status)
        if seconds is not None:
            self.send_header("retry-after", seconds)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_DELETE = do_PATCH = do_GET  # noqa: N815 - as its base class calls them

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def busy(*script: tuple[int, str | None]) -> Iterator[tuple[str, list[str]]]:
    """The address of such a server, and the methods that it is asked by."""
    asked: list[str] = []
    handler = type("Scripted", (Busy,), {"script": list(script), "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.slow
def test_a_busy_server_is_asked_again_when_it_says(connect: Connect) -> None:
    begun = time.monotonic()
    with busy((429, "1"), (503, "0"), (502, None), (200, None)) as (url, asked):
        assert connect(url).datasets.report("a") == {}
    assert asked == ["GET"] * 4
    assert time.monotonic() - begun > 1.5
    with busy((429, "0"), (503, "0")) as (url, asked):
        with pytest.raises(StoreError) as caught:
            connect(url).datasets.update("a", meta={})
        assert caught.value.status_code == 503
    assert asked == ["PATCH"] * 2
    with busy((429, "9999")) as (url, _), pytest.raises(TooManyError) as late:
        connect(url).datasets.report("a")
    assert late.value.retry_after == 9999


@contextmanager
def secured(folder: Path) -> Iterator[int]:
    """The port of a server with a certificate that nobody knows."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=36500))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = folder / "server.pem"
    pem.write_bytes(secret + made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    handler = type("Scripted", (Busy,), {"script": [(200, None)] * 4, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_certificate_that_nobody_knows_is_refused_however_the_address_is_written(kind: Kind, tmp_path: Path) -> None:
    with secured(tmp_path) as port:
        for scheme in ("https", "HTTPS", "Https"):
            url = f"{scheme}://127.0.0.1:{port}"
            refused = pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED")
            with opened(kind, url, api_key="secret", retries=0) as client, refused:
                client.readiness()
        unverified = httpx2.Client(verify=False) if kind == "blocking" else httpx2.AsyncClient(verify=False)
        with opened(kind, f"HTTPS://127.0.0.1:{port}", http=unverified) as client:
            assert client.readiness() == {}


# Waiting


@pytest.mark.slow
def test_a_wait_survives_cut_streams_and_a_server_that_is_started_again(settings: Settings, connect: Connect) -> None:
    settings.root.mkdir()
    seen: list[JobEvent] = []
    with served(settings) as first, proxied(first.port) as proxy:
        reporter, client = connect(first.url), connect(proxy.url)
        job = submit(reporter)

        def train() -> None:
            report(reporter, job.id, 0, 1)
            until(lambda: len(seen) >= 3)
            proxy.cut()
            report(reporter, job.id, 2, 3)
            until(lambda: len(seen) >= 5)
            proxy.upstream = None
            first.stop()
            time.sleep(1.5)
            with served(settings) as second:
                proxy.upstream = second.port
                reporter_again = connect(second.url)
                report(reporter_again, job.id, 4)
                reporter_again.jobs.update(job.id, status="completed", result={"loraPath": "a"})
                until(lambda: seen[-1].data.get("status") == "completed")
                done.wait(30)

        done = threading.Event()
        with meanwhile(train):
            ended = client.jobs.wait_for_completion(job.id, on_progress=seen.append, poll_interval=0.1, timeout=120)
            done.set()
    assert (ended.status, ended.result) == ("completed", {"loraPath": "a"})
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    epochs = [event.data["currentEpoch"] for event in seen if event.type == "progress"]
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 1, 2, 3, 4}


def test_where_no_stream_comes_through_it_asks_again_and_again(connect: Connect) -> None:
    """The streams are a page of some proxy's, damaged, and refused; what is asked for is true."""
    page: Reply = (200, {"content-type": "text/html"}, b"<html>\n\n")
    broken: Reply = (200, {"content-type": "text/event-stream"}, b'data: {"seq": "one"}\n\n')
    refused: Reply = (503, {}, b"")
    seen: list[int] = []
    with scripted(page, told(), sent(JOB), broken, told(PROGRESS), refused, told(END), sent(ENDED)) as (
        url,
        asked,
    ):
        ended = connect(url).jobs.wait_for_completion(
            "j", on_progress=lambda event: seen.append(event.seq), poll_interval=0.05
        )
    assert (ended.result, seen) == ({"loraPath": "a"}, [1, 2])
    assert [line.removeprefix("GET /jobs/j") for line in asked] == [
        *("/events", "/events?after=0&take=1000", ""),
        *("/events", "/events?after=0&take=1000"),
        *("/events", "/events?after=1&take=1000", ""),
    ]


def test_a_stream_that_is_held_back_is_not_waited_for_again(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influencerai.client.events.SILENT_SECONDS", 0.5)
    held: Reply = (200, {"content-type": "text/event-stream", "content-length": "100"}, b"")
    with scripted(held, told(), sent(JOB), told(PROGRESS), told(END), sent(ENDED)) as (url, asked):
        ended = connect(url).jobs.wait_for_completion("j", poll_interval=0.05)
    assert ended.status == "completed"
    assert asked.count("GET /jobs/j/events") == 1


def test_a_busy_server_says_when_it_is_asked_again(connect: Connect) -> None:
    busy: Reply = (429, {"retry-after": "1"}, b"{}")
    begun = time.monotonic()
    with scripted(busy, busy, told(END), sent(ENDED)) as (url, _):
        connect(url, retries=0).jobs.wait_for_completion("j", poll_interval=0.01)
    assert time.monotonic() - begun >= 1


def test_a_question_that_gets_no_answer_is_not_waited_for_beyond_the_end(connect: Connect) -> None:
    free = threading.Event()
    begun = time.monotonic()
    with scripted(told(), meanwhile=lambda path: free.wait(60)) as (url, _), pytest.raises(TimedOutError):
        connect(url).jobs.wait_for_completion("j", timeout=1)
    free.set()
    assert time.monotonic() - begun < 25


@pytest.mark.slow
def test_a_long_callback_costs_no_patience(connect: Connect) -> None:
    """The first question after it is lost, and asked again."""
    refused: Reply = (503, {}, b"")
    with scripted(refused, told(PROGRESS), refused, refused, told(END), sent(ENDED)) as (url, _):
        ended = connect(url).jobs.wait_for_completion(
            "j", on_progress=lambda event: time.sleep(1.2), poll_interval=0.05, patience=1
        )
    assert ended.status == "completed"


def test_a_wait_ends_in_time(client: InfluencerAIClient) -> None:
    job = submit(client)
    begun = time.monotonic()
    with pytest.raises(TimedOutError, match="has not ended within 1 seconds") as caught:
        client.jobs.wait_for_completion(job.id, timeout=1, poll_interval=5)
    assert isinstance(caught.value, TimeoutError)
    assert 1 <= time.monotonic() - begun < 5


def test_a_timeout_that_passes_during_a_request_is_reported(client: InfluencerAIClient) -> None:
    job = submit(client)
    for milliseconds in range(80):
        with pytest.raises(TimedOutError):
            client.jobs.wait_for_completion(job.id, timeout=milliseconds / 2000, poll_interval=0.1)


@pytest.mark.slow
def test_a_stream_is_left_in_time_though_heartbeats_go_on(
    client: InfluencerAIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("influencerai.serve.event_source.HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr("influencerai.client.events._STREAMED_SECONDS", 0.5)
    job = submit(client)
    begun = time.monotonic()
    with pytest.raises(TimedOutError):
        client.jobs.wait_for_completion(job.id, timeout=1.5, poll_interval=0.1)
    assert 1.5 <= time.monotonic() - begun < 5


def test_a_server_that_does_not_come_back_is_given_up(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.url, retries=1)
    job = submit(client)
    events = client.jobs.follow(job.id, patience=0.5, poll_interval=0.1)
    assert next(iter(events)).seq == 1
    proxy.upstream = None
    proxy.cut()
    with pytest.raises(UnreachableError):
        list(events)


@pytest.mark.slow
def test_a_stream_that_is_left_is_closed(server: Served, client: InfluencerAIClient) -> None:
    events = client.jobs.follow(submit(client).id)
    assert next(events).seq == 1
    assert server.service.event_streams.open_streams == 1
    events.close()
    until(lambda: server.service.event_streams.open_streams == 0)


def test_a_job_that_failed_raises_its_error(client: InfluencerAIClient) -> None:
    job = submit(client)
    result = {"error": "The loss is not a number.", "epoch": 3, "partialCheckpoints": ["a-epoch-2.safetensors"]}
    client.jobs.update(job.id, status="failed", result=result)
    with pytest.raises(TrainingError, match="not a number") as caught:
        client.jobs.wait_for_completion(job.id)
    assert caught.value.failure == result
    again = client.jobs.retry(job.id)
    client.jobs.cancel(again.id)
    with pytest.raises(StoppedError, match="Cancelled"):
        client.jobs.wait_for_completion(again.id)
    last = [event.seq for event in client.jobs.events(job.id)][-1]
    for after in (last, last + 5):
        assert list(client.jobs.follow(job.id, after=after)) == []
        assert list(client.jobs.follow(job.id, after=after, timeout=10)) == []


def test_a_job_that_is_deleted_is_not_waited_for(client: InfluencerAIClient) -> None:
    with pytest.raises(NotFoundError):
        client.jobs.wait_for_completion("nothing", timeout=30)
    with pytest.raises(NotFoundError):
        client.jobs.wait_for_completion("nothing", timeout=5)


# Downloads


@pytest.fixture
def published(settings: Settings, proxy: Proxy, connect: Connect) -> str:
    """The id of a job with two files."""
    job = submit(connect(proxy.url))
    publish(settings, {f"{FOLDER}/p-final.safetensors": DATA, f"{FOLDER}/samples/e1.png": b"png"})
    return job.id


def test_files_are_fetched_once(published: str, proxy: Proxy, connect: Connect, tmp_path: Path) -> None:
    client, to = connect(proxy.url), tmp_path / "new" / "here"
    found = client.jobs.download(published, to=to)
    assert [path.relative_to(to).as_posix() for path in found] == ["p-final.safetensors", "e1.png"]
    assert (found[0].read_bytes(), found[1].read_bytes()) == (DATA, b"png")
    asked = proxy.requests(b"/artifacts/")
    assert client.jobs.download(published, to=to) == found
    assert proxy.requests(b"/artifacts/") == asked
    found[0].write_bytes(b"mine")
    with pytest.raises(ConflictError, match="other content"):
        client.jobs.download(published, to=to)
    assert found[0].read_bytes() == b"mine"
    assert client.jobs.download(published, to=to, kind="lora", replace=True) == found[:1]
    assert found[0].read_bytes() == DATA
    assert client.jobs.download(published, to=tmp_path / "one", names=["e1.png"]) == (tmp_path / "one" / "e1.png",)
    with pytest.raises(NotFoundError, match=r"no file x\.png"):
        client.jobs.download(published, to=to, names=["x.png"])
    assert sorted(path.name for path in to.iterdir()) == ["e1.png", "p-final.safetensors"]


def test_a_cut_download_goes_on_where_it_stopped(
    published: str, proxy: Proxy, connect: Connect, tmp_path: Path
) -> None:
    client = connect(proxy.url)
    proxy.cuts = [300_000, 300_000, 100]
    (path,) = client.jobs.download(published, to=tmp_path / "to", kind="lora")
    assert path.read_bytes() == DATA
    begins = [int(found) for found in re.findall(rb"range: bytes=(\d+)-", bytes(proxy.asked), re.IGNORECASE)]
    assert len(begins) == 3
    assert 290_000 < begins[0] < 300_000 < begins[1] == begins[2]
    assert list((tmp_path / "to").iterdir()) == [path]


def test_a_later_call_goes_on_too_and_damage_is_noticed(
    published: str, proxy: Proxy, connect: Connect, tmp_path: Path
) -> None:
    client = connect(proxy.url)
    part = tmp_path / f".influencerai-{hashlib.sha256(DATA).hexdigest()}.part"
    part.write_bytes(DATA[:1000])
    (path,) = client.jobs.download(published, to=tmp_path, kind="lora")
    assert b"range: bytes=1000-" in bytes(proxy.asked).lower()
    assert path.read_bytes() == DATA
    for damaged in (b"x" * 1000, DATA + b"x", b"x" * len(DATA)):
        path.unlink()
        part.write_bytes(damaged)
        assert client.jobs.download(published, to=tmp_path, kind="lora") == (path,)
        assert path.read_bytes() == DATA
        assert not part.exists()


@pytest.mark.slow
def test_a_part_that_another_download_works_on_is_left_to_it(
    published: str, client: InfluencerAIClient, tmp_path: Path
) -> None:
    with claimed_part(tmp_path, hashlib.sha256(DATA).hexdigest()) as part:
        part.write_bytes(DATA[:1000])
        (path,) = client.jobs.download(published, to=tmp_path, kind="lora")
        assert (path.read_bytes(), part.read_bytes()) == (DATA, DATA[:1000])
        assert {found for found in tmp_path.iterdir() if found.is_file()} == {path, part}
    assert part.read_bytes() == DATA[:1000]
    path.unlink()
    assert client.jobs.download(published, to=tmp_path, kind="lora") == (path,)
    assert not part.exists()


def test_downloads_at_once_into_one_folder_all_end_well(
    published: str, proxy: Proxy, connect: Connect, tmp_path: Path
) -> None:
    clients = [connect(proxy.url) for _ in range(4)]
    for number in range(3):
        proxy.cuts = [100_000, 300_000, 700_000]
        to = tmp_path / f"to-{number}"
        with ThreadPoolExecutor(len(clients)) as pool:
            asked = [pool.submit(client.jobs.download, published, to=to, kind="lora") for client in clients]
        assert [each.result() for each in asked] == [(to / "p-final.safetensors",)] * len(clients)
        assert (to / "p-final.safetensors").read_bytes() == DATA
        assert [found.name for found in to.iterdir()] == ["p-final.safetensors"]


def test_another_name_of_a_part_keeps_its_bytes(published: str, client: InfluencerAIClient, tmp_path: Path) -> None:
    with claimed_part(tmp_path, hashlib.sha256(DATA).hexdigest()) as part:
        part.write_bytes(DATA[:1000])
    os.link(part, tmp_path / "kept")
    (path,) = client.jobs.download(published, to=tmp_path, kind="lora")
    assert path.read_bytes() == DATA
    assert (tmp_path / "kept").read_bytes() == DATA[:1000]


@contextmanager
def publishing(meanwhile: Callable[[], object]) -> Iterator[str]:
    """The address of a server whose jobs have one file; before it sends that, it does something else."""
    file = JobArtifact(
        name="a.safetensors",
        kind="lora",
        path="a",
        size=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        step=1,
        epoch=1,
        created_at=datetime.now(UTC),
        url="/a",
    )
    listed = b'{"data": [' + file.model_dump_json(by_alias=True).encode() + b"]}"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_list = self.path.endswith("/artifacts")
            if not is_list:
                meanwhile()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(listed if is_list else DATA)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    has_links: bool, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not has_links:  # as on FAT
        monkeypatch.setattr("influencerai.client.download.os.link", refuse)
    path = tmp_path / "a.safetensors"
    with publishing(lambda: path.write_bytes(b"mine")) as url:
        client = connect(url)
        with pytest.raises(ConflictError, match="other content"):
            client.jobs.download("j", to=tmp_path)
        assert path.read_bytes() == b"mine"
        assert client.jobs.download("j", to=tmp_path, replace=True) == (path,)
        assert path.read_bytes() == DATA
    for appears in (lambda: path.write_bytes(DATA), lambda: None):
        path.unlink()
        with publishing(appears) as url:
            assert connect(url).jobs.download("j", to=tmp_path) == (path,)
        assert path.read_bytes() == DATA
        assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_folder_is_not_followed(published: str, client: InfluencerAIClient, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    to = tmp_path / "to"
    to.mkdir()
    (to / f".influencerai-{hashlib.sha256(DATA).hexdigest()}.part").symlink_to(outside)
    (to / "p-final.safetensors").symlink_to(outside)
    with pytest.raises(ConflictError):
        client.jobs.download(published, to=to, kind="lora")
    (path,) = client.jobs.download(published, to=to, kind="lora", replace=True)
    assert not path.is_symlink()
    assert path.read_bytes() == DATA
    assert outside.read_bytes() == b"mine"


def test_a_file_that_was_changed_on_the_server_never_gets_its_name(
    published: str, client: InfluencerAIClient, settings: Settings, tmp_path: Path
) -> None:
    for other in (b"x" * len(DATA), b"short", DATA + b"long"):
        (settings.root / FOLDER / "p-final.safetensors").write_bytes(other)
        with pytest.raises(InfluencerAIError, match="damaged"):
            client.jobs.download(published, to=tmp_path / "to", kind="lora")
        assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "..", "/etc/evil", "a/b", "a\\b", ".hidden", "a\nb", "", "x" * 256])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InfluencerAIError, match="no safe name"):
        checked_name(name)


def test_a_hostile_server_writes_nothing(
    server: Served, client: InfluencerAIClient, settings: Settings, tmp_path: Path
) -> None:
    job = submit(client)
    good, evil = f"{FOLDER}/a.safetensors", f"{FOLDER}/b.safetensors"
    publish(settings, {good: DATA, evil: DATA}, names={evil: "../evil.safetensors"})
    with pytest.raises(InfluencerAIError, match="no safe name"):
        client.jobs.download(job.id, to=tmp_path / "to")
    assert [path for path in tmp_path.rglob("*.safetensors") if settings.root not in path.parents] == []


def test_a_full_disk_or_a_bad_folder_is_said(published: str, client: InfluencerAIClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfluencerAIError, match="cannot be made"):
        client.jobs.download(published, to=tmp_path / "file")
    (tmp_path / "to" / "p-final.safetensors").mkdir(parents=True)
    with pytest.raises(InfluencerAIError, match="cannot be written"):
        client.jobs.download(published, to=tmp_path / "to", kind="lora", replace=True)
