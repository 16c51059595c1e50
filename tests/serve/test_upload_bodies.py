"""Bodies of uploads: on the disk at once, few of a tenant at a time, and not for as long as a sender likes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException

from influencerai.serve import upload_request
from influencerai.serve.upload_parts import Part, PartsParser, Spool
from tests.serve.running import ANN, BOB, Api, checked_error, picture

pytestmark = pytest.mark.anyio
FORM = {"content-type": "multipart/form-data; boundary=x"}
END = b"--x--\r\n"


def part(name: str, data: bytes) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


async def in_chunks(data: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in data:
        for start in range(0, len(piece), 2**16):
            yield piece[start : start + 2**16]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def spool() -> Iterator[Spool]:
    opened = Spool()
    yield opened
    opened.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list descriptors")
async def test_a_body_of_many_files_takes_one_descriptor_and_little_memory(spool: Spool) -> None:
    count, size, before = 40, 2**20, descriptors()

    def content(number: int) -> bytes:
        return bytes([number]) * (size + number)

    def body() -> Iterator[bytes]:
        for number in range(count):
            yield part(f"{number}.png", content(number))
        yield part("empty.txt", b"") + END

    tracemalloc.start()
    form = await PartsParser(Headers(FORM), in_chunks(body()), spool=spool).parse()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert descriptors() <= before
    assert most < 8 * size
    files: list[Any] = form.getlist("files")
    assert [file.filename for file in files] == [*(f"{number}.png" for number in range(count)), "empty.txt"]
    assert files[-1].file.read() == b""
    for number in (0, 7, count - 1):
        upload: UploadFile = files[number]
        assert upload.size == size + number
        assert upload.file.tell() == 0
        assert hashlib.sha256(upload.file.read()).digest() == hashlib.sha256(content(number)).digest()
        assert upload.file.seek(-3, os.SEEK_END) == size + number - 3
        assert upload.file.read() == bytes([number]) * 3


@pytest.mark.parametrize("body", [
    b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n%s\r\n' % bytes(400) for _ in range(3)) + END,
    b'--x\r\nContent-Disposition: form-data; name="a"; filename="%s"\r\n\r\n\r\n' % (b"a" * 20_000) + END,
], ids=["fields", "headers"])  # fmt: skip
async def test_what_stays_in_memory_of_a_body_is_bounded(spool: Spool, body: bytes) -> None:
    with pytest.raises(MultiPartException, match=r"exceed|Invalid"):
        await PartsParser(Headers(FORM), in_chunks(iter([body])), spool=spool, max_part_size=1000).parse()


async def test_a_write_ends_before_its_file_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, write = threading.Event(), os.pwrite

    def write_late(descriptor: int, data: bytes, offset: int) -> int:
        begun.set()
        time.sleep(0.1)
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", write_late)
    spool = Spool()
    upload = UploadFile(Part(spool), size=0)  # type: ignore[arg-type]
    writing = asyncio.create_task(upload.write(bytes(2**17)))
    await asyncio.to_thread(begun.wait)
    writing.cancel()  # the thread goes on
    await asyncio.wait({writing})
    spool.close()
    with tempfile.TemporaryFile() as other:  # its descriptor has the same number
        await asyncio.sleep(0.2)
        assert os.fstat(other.fileno()).st_size == 0


async def test_an_upload_without_a_folder_for_temporary_files_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    id = (await api.dataset())["id"]
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    answer = await api.post(f"/datasets/{id}/images", content=part("a.png", picture()) + END, headers=FORM)
    assert "no room" in checked_error(answer, 500)["message"]
    assert "TMPDIR" in caplog.text


async def test_a_form_of_another_kind_is_not_read(api: Api) -> None:
    read, id = 0, (await api.dataset())["id"]

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"files=" + bytes(2**16) + b"&"

    headers = {"content-type": "application/x-www-form-urlencoded"}
    checked_error(await api.post(f"/datasets/{id}/images", content=body(), headers=headers), 400)
    assert read == 0


class Sender:
    """An upload whose body stops in the middle until it may go on."""

    def __init__(self, api: Api, id: str, number: int, *, tenant: str = ANN) -> None:
        self.go = asyncio.Event()
        self.has_begun = False
        self._data = part(f"{number}.png", picture(number)) + END
        post = api.post(f"/datasets/{id}/images", content=self._body(), headers=FORM, tenant=tenant)
        self.answer: asyncio.Task[Response] = asyncio.create_task(post)

    async def _body(self) -> AsyncIterator[bytes]:
        self.has_begun = True
        yield self._data[:100]
        await self.go.wait()
        yield self._data[100:]


async def begun(*senders: Sender) -> None:
    async with asyncio.timeout(10):
        while not all(sender.has_begun for sender in senders):
            await asyncio.sleep(0.01)


async def test_more_bodies_than_a_tenant_may_send_at_once_wait_unread(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = upload_request.BODIES_PER_TENANT
    mine, theirs = (await api.dataset())["id"], (await api.dataset(tenant=BOB, path="data/bob"))["id"]
    sending = [Sender(api, mine, number) for number in range(most)]
    await begun(*sending)
    waiting, other = Sender(api, mine, most), Sender(api, theirs, 1, tenant=BOB)
    other.go.set()
    assert (await other.answer).status_code == 200
    assert not waiting.has_begun
    monkeypatch.setattr(upload_request, "WAITING_SECONDS", 0.05)
    late = Sender(api, mine, 9)
    refused = await late.answer
    checked_error(refused, 429)
    assert refused.headers["retry-after"]
    assert not late.has_begun
    sending[0].go.set()
    await begun(waiting)
    for sender in (*sending, waiting):
        sender.go.set()
        assert (await sender.answer).status_code == 200
    assert len(list((api.root / "data/datasets/me").glob("*.png"))) == most + 1


async def test_a_body_that_comes_too_slowly_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_request, "SLOW_SECONDS", 0.1)
    slow = Sender(api, (await api.dataset())["id"], 1)
    checked_error(await slow.answer, 408)
    assert not (api.root / "data/datasets/me").exists()
