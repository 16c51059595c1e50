"""Downloads of published files: ranges, ETags, and names that nobody should break anything with."""

from __future__ import annotations

import asyncio
import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from starlette.types import Message

from influencerai.files.tenant_folders import TenantFolders
from influencerai.serve.routes.job_log import Download
from influencerai.store.queue import PublishedFile
from tests.serve.running import Api, checked_error, picture

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 40


async def publish(api: Api, *names: str) -> tuple[str, Path]:
    """A job with these files; its id and their folder."""
    job = await api.job()
    lease, stored = await api.claim()
    folder = api.root / stored.output_dir
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(DATA)
    files = [
        PublishedFile(
            name=name, kind="sample" if name.endswith("png") else "lora", path=f"{stored.output_dir}/{name}",
            size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest(), step=1, epoch=1,
        )
        for name in names
    ]  # fmt: skip
    async with api.service.store.write() as transaction:
        await transaction.queue.record(lease, seconds=60, files=files)
    return job["id"], folder


async def test_a_sample_has_a_thumbnail(api: Api) -> None:
    id, folder = await publish(api, "a.safetensors", "b.png", "broken.png")
    (folder / "b.png").write_bytes(picture(1, size=(1600, 400)))
    listed = {file["name"]: file["thumbnail"] for file in (await api.get(f"/jobs/{id}/artifacts")).json()["data"]}
    assert listed["a.safetensors"] is None
    small = await api.get(listed["b.png"])
    assert small.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(small.content)).size == (256, 64)
    for name in ("a.safetensors", "broken.png", "none.png"):
        checked_error(await api.get(f"/jobs/{id}/artifacts/{name}/thumbnail"), 404)
    checked_error(await api.get(listed["b.png"], tenant="bob"), 404)


async def test_a_file_and_its_ranges(api: Api) -> None:
    id, _ = await publish(api, "a.safetensors", "b.png")
    listed = (await api.get(f"/jobs/{id}/artifacts")).json()["data"]
    assert {file["name"]: file["kind"] for file in listed} == {"a.safetensors": "lora", "b.png": "sample"}
    (url,) = [file["url"] for file in listed if file["kind"] == "lora"]
    whole = await api.get(url)
    assert whole.content == DATA
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-disposition"] == 'attachment; filename="a.safetensors"'
    etag = whole.headers["etag"]
    assert etag == f'"{listed[0]["sha256"]}"'
    part = await api.get(url, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, DATA[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(DATA)}"
    assert (await api.get(url, headers={"range": "bytes=-5"})).content == DATA[-5:]
    assert (await api.get(url, headers={"range": "bytes=10-", "if-range": etag})).content == DATA[10:]
    changed = await api.get(url, headers={"range": "bytes=10-", "if-range": '"other"'})
    assert (changed.status_code, changed.content) == (200, DATA)
    for bad in ("bytes=99999-", "bytes=5-1", "bytes=a-b", "lines=1-2"):
        answer = await api.get(url, headers={"range": bad})
        assert answer.status_code in (200, 400, 416), bad
    head = await api.send("HEAD", url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(DATA)))
    for tag in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        unchanged = await api.get(url, headers={"if-none-match": tag})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    assert (await api.get(url, headers={"if-none-match": '"x"'})).status_code == 200


async def test_names_that_are_odd(api: Api) -> None:
    names = ['a "quoted".safetensors', "ü💥.safetensors", "a;b=c#d?e&f+g.safetensors"]
    id, _ = await publish(api, *names)
    for file in (await api.get(f"/jobs/{id}/artifacts")).json()["data"]:
        answer = await api.get(file["url"])
        assert answer.content == DATA, file
        assert "set-cookie" not in answer.headers
        shown = answer.headers["content-disposition"]
        assert "\n" not in shown
        assert shown.startswith("attachment; filename")
        assert unquote(shown.partition("''")[2]) == file["name"]


async def test_files_that_are_gone(api: Api) -> None:
    id, folder = await publish(api, "a.safetensors", "b.safetensors")
    (folder / "a.safetensors").unlink()
    (folder / "b.safetensors").unlink()
    (folder / "b.safetensors").symlink_to("/etc/passwd")
    for name in ("a.safetensors", "b.safetensors", "c.safetensors"):
        refusal = checked_error(await api.get(f"/jobs/{id}/artifacts/{name}"), 404)
        assert refusal["message"] == f"Artifact {name} of job {id} not found"


@pytest.mark.parametrize("url", ["a.safetensors", "b.png", "b.png/thumbnail"])
async def test_a_folder_exchanged_for_a_link_leads_to_nobody_elses_file(
    api: Api, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    id, folder = await publish(api, "a.safetensors", "b.png")
    foreign = tmp_path_factory.mktemp("foreign")
    for name in ("a.safetensors", "b.png"):
        (foreign / name).write_bytes(picture(1))
    resolve = TenantFolders.resolve

    def exchanged_after(folders: TenantFolders, *arguments: Any, **options: Any) -> Path:
        found = resolve(folders, *arguments, **options)
        if not folder.is_symlink():
            folder.rename(folder.with_name("elsewhere"))
            folder.symlink_to(foreign)
        return found

    monkeypatch.setattr(TenantFolders, "resolve", exchanged_after)
    checked_error(await api.get(f"/jobs/{id}/artifacts/{url}"), 404)


async def test_a_file_is_closed_however_its_answer_ends(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_bytes(DATA * 100)
    sent: list[Message] = []

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    async def refuse(message: Message) -> None:
        sent.append(message)
        if len(sent) > 2:
            raise OSError("The client has left")

    async def wait_for_ever(message: Message) -> None:
        await asyncio.Event().wait()

    for method, spec, send in (("GET", "2.3", wait_for_ever), ("GET", "2.4", refuse), ("HEAD", "2.4", refuse)):
        scope = {"type": "http", "method": method, "headers": [], "asgi": {"spec_version": spec}}
        with place.open("rb") as file:
            download = Download(file, filename="a")
            place.rename(place.with_name("b"))  # which is of no matter to who has it open
            with suppress(OSError):
                await download(scope, leave, send)
            assert file.closed
            place.with_name("b").rename(place)
    begun, part = "http.response.start", "http.response.body"
    assert [message["type"] for message in sent] == [begun, part, part, begun]
    assert sent[1]["body"] == (DATA * 100)[: len(sent[1]["body"])]
