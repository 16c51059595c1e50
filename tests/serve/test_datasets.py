"""Datasets over HTTP: what is found in their folders, uploads, captions, reports and thumbnails."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from httpx2 import Response
from PIL import Image

from influencerai.service import dataset_inspections as datasets_module
from influencerai.settings import Settings
from tests.serve.running import Api, checked_error, field_errors, picture, running

pytestmark = pytest.mark.anyio

Files = list[tuple[str, tuple[str, bytes]]]


def uploads(**files: bytes) -> Files:
    return [("files", (name.replace("__", "."), data)) for name, data in files.items()]


def archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


async def upload(api: Api, id: str, files: Files, **fields: str) -> Response:
    return await api.send("POST", f"/datasets/{id}/images", files=files, data=fields)


def tree(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".influencerai")}


async def test_status_on_create(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pending = await api.dataset(path="./data/nowhere/")
    assert (pending["path"], pending["status"]) == ("data/nowhere", "pending")
    assert "data/nowhere" in pending["warnings"][0]
    api.pictures("data/good")
    assert (await api.dataset(path="data/good"))["status"] == "ready"
    (api.root / "data/empty").mkdir()
    (api.root / "data/bad").mkdir()
    (api.root / "data/bad/x.png").write_bytes(b"no image")
    (api.root / "data/file").write_bytes(b"")
    for path, status in (("data/empty", "failed"), ("data/bad", "failed"), ("data/file", "pending")):
        made = await api.dataset(path=path)
        assert (made["status"], bool(made["warnings"])) == (status, True), path
    monkeypatch.setattr(datasets_module, "INSPECTED_AT_ONCE", 1)
    large = await api.dataset(path="data/good")
    assert large["status"] == "processing"
    for _ in range(200):
        if (await api.get(f"/datasets/{large['id']}")).json()["status"] == "ready":
            break
        await asyncio.sleep(0.02)
    assert (await api.get(f"/datasets/{large['id']}")).json()["status"] == "ready"


async def test_a_pending_one_is_looked_at_again(any_api: Api) -> None:
    first, second = await any_api.dataset(), await any_api.dataset()
    assert (await any_api.get(f"/datasets/{first['id']}")).json()["status"] == "pending"
    any_api.pictures()
    assert (await any_api.get(f"/datasets/{first['id']}")).json()["status"] == "ready"
    job = await any_api.job(datasetId=second["id"])
    assert [text for text in job["warnings"] if not text.startswith("The base model")] == []
    assert (await any_api.get("/datasets?status=ready")).headers["x-total-count"] == "2"


async def test_maintenance_shared_past_one_that_cannot_be_looked_at(any_api: Api, tmp_path: Path) -> None:
    """Else one tenant's bad folder would keep everybody's jobs waiting."""
    bad = await any_api.dataset(path="data/bad")
    good = await any_api.dataset(tenant="zoe", path="data/good")
    for tenant, dataset in (("ann", bad), ("zoe", good)):
        await any_api.job(tenant=tenant, datasetId=dataset["id"])
    (any_api.root / "data").mkdir()
    (any_api.root / "data/bad").symlink_to("/etc")
    any_api.pictures("data/good")
    for _ in range(300):
        listed = (await any_api.get("/datasets", tenant="zoe")).json()
        if listed[0]["status"] == "ready":
            break
        await asyncio.sleep(0.02)
    assert listed[0]["status"] == "ready"
    shown = await any_api.get(f"/datasets/{bad['id']}")
    assert (shown.status_code, shown.json()["status"]) == (200, "failed")


async def test_status_by_hand(any_api: Api) -> None:
    made = await any_api.dataset(meta={"triggerWord": "ohwx"})
    path = f"/datasets/{made['id']}/status"
    for status in ("processing", "ready", "failed", "pending"):
        changed = (await any_api.patch(path, {"status": status})).json()
        assert changed["status"] == status
        assert changed["meta"] == {"triggerWord": "ohwx", "lastUpdatedBy": "ann"}
        assert changed["updatedAt"] > made["updatedAt"]
    for body in ({}, {"status": None}, {"status": "done"}, {"status": "READY"}):
        assert "status" in field_errors(await any_api.patch(path, body))
    counted = {
        status: (await any_api.get(f"/datasets?status={status}")).headers["x-total-count"]
        for status in ("pending", "ready")
    }
    assert counted == {"pending": "1", "ready": "0"}


async def test_meta(any_api: Api) -> None:
    made = await any_api.dataset(meta={"imageCount": "many", "triggerWord": ["no", "text"]})
    path = f"/datasets/{made['id']}"
    assert (await any_api.patch(path, {"meta": {"new": 1}})).json()["meta"] == {"new": 1}
    assert (await any_api.patch(path, {"meta": None})).json()["meta"] == {"new": 1}
    assert (await any_api.patch(path, {})).json()["meta"] == {"new": 1}
    assert (await any_api.patch(path, {"meta": {}})).json()["meta"] == {}
    ignored = (await any_api.patch(path, {"path": "/etc", "kind": "x", "status": "ready"})).json()
    assert (ignored["path"], ignored["kind"], ignored["status"]) == (made["path"], made["kind"], made["status"])
    assert (await any_api.job(datasetId=made["id"]))["status"] == "pending"  # whatever its trigger word is


async def test_lists_are_bare(any_api: Api) -> None:
    made = [await any_api.dataset(kind=kind) for kind in ("lora-training", "fine-tuning", "lora-training")]
    answer = await any_api.get("/datasets?take=1&skip=1&sortOrder=asc")
    assert [item["id"] for item in answer.json()] == [made[1]["id"]]
    assert [answer.headers[f"x-{name}"] for name in ("total-count", "take", "skip")] == ["3", "1", "1"]
    assert (await any_api.get("/datasets?kind=fine-tuning")).headers["x-total-count"] == "1"
    await any_api.patch(f"/datasets/{made[0]['id']}", {"meta": {"a": 1}})
    assert (await any_api.get("/datasets?sortBy=updatedAt")).json()[0]["id"] == made[0]["id"]


async def test_upload(api: Api) -> None:
    made = await api.dataset(path="data/new")
    files = uploads(a__png=picture(1), b__png=picture(2), b__txt=b"ohwx, smiling")
    answer = await upload(api, made["id"], files, captions='{"a.png": "ohwx, \\u00fc"}')
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["added"] == ["a.png", "a.txt", "b.png", "b.txt"]
    assert (report["captions"], report["status"], report["replaced"], report["unchanged"]) == (2, "ready", [], [])
    folder = api.root / "data/new"
    assert tree(folder) == {
        "a.png": picture(1),
        "a.txt": "ohwx, ü".encode(),
        "b.png": picture(2),
        "b.txt": b"ohwx, smiling",
    }
    again = (await upload(api, made["id"], files)).json()
    assert (again["added"], again["unchanged"]) == ([], ["a.png", "b.png", "b.txt"])
    changed = uploads(a__png=picture(9))
    assert "files.a.png" in field_errors(await upload(api, made["id"], changed))
    for replace in ("1", "yes", "True"):
        assert "replace" in field_errors(await upload(api, made["id"], changed, replace=replace))
    assert (await upload(api, made["id"], changed, replace="true")).json()["replaced"] == ["a.png"]
    zipped = archive({"set/c.png": picture(3), "set/c.txt": b"ohwx, zip", "__MACOSX/._c.png": b"x"})
    report = (await upload(api, made["id"], uploads(set__zip=zipped))).json()
    assert report["added"] == ["c.png", "c.txt"]
    images = (await api.get(f"/datasets/{made['id']}/images")).json()
    assert [(image["path"], image["caption"]) for image in images["data"]] == [
        ("a.png", "ohwx, ü"), ("b.png", "ohwx, smiling"), ("c.png", "ohwx, zip"),
    ]  # fmt: skip


async def test_an_upload_is_all_or_nothing(api: Api) -> None:
    made = await api.dataset(path="data/new")
    good = uploads(a__png=picture(1))
    bad: list[tuple[Files, dict[str, str], str]] = [
        (good + uploads(b__png=b""), {}, "files.b.png"),
        (uploads(b__exe=b"MZ"), {}, "files.b.exe"),
        (uploads(b__png=b"no image"), {}, "files.b.png"),
        (good + uploads(b__png=picture(2)[:60]), {}, "files.b.png"),
        ([*good, ("files", ("..", b"x"))], {}, "files"),
        ([*good, ("files", ("%2e%2e%2fb.png", picture(2)))], {}, "files"),
        (good, {"captions": '{"z.png": "no such image"}'}, "captions.z.png"),
        (good, {"captions": '{"a.png": 7}'}, "captions"),
        (good, {"captions": "[]"}, "captions"),
        (good, {"captions": "{"}, "captions"),
        (good, {"captions": "[" * 100_000}, "captions"),
        (good, {"captions": '{"a.png": "\\ud800"}'}, "captions.a.png"),
        (good, {"captions": '{"a.png": "\\u0000"}'}, "captions.a.png"),
        (good + uploads(x__zip=archive({"../../evil.png": picture(3), "y.png": b""})), {}, "files"),
        (good + uploads(x__zip=archive({"a.png": picture(1)})[:-30]), {}, "files"),
    ]
    for files, fields, name in bad:
        errors = field_errors(await upload(api, made["id"], files, **fields))
        assert any(key.startswith(name) for key in errors), (name, errors)
        assert not tree(api.root / "data")
    assert "files" in field_errors(await api.send("POST", f"/datasets/{made['id']}/images", data={"replace": "true"}))
    assert field_errors(await api.send("POST", f"/datasets/{made['id']}/images", json={"files": []}))
    torn = {"content-type": "multipart/form-data; boundary=x"}
    for content in (
        b"",
        b"--x\r\nnonsense",
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc',
    ):
        checked_error(await api.send("POST", f"/datasets/{made['id']}/images", content=content, headers=torn), 400)
    checked_error(await upload(api, "unknown", good), 404)
    assert not (api.root / "data").exists() or not tree(api.root / "data")


async def test_images_and_thumbnails(api: Api) -> None:
    folder = api.pictures(count=3)
    (folder / "sub dir").mkdir()
    (folder / "sub dir/ü #?.png").write_bytes(picture(50, size=(800, 400)))
    (folder / "bad.png").write_bytes(b"no image")
    made = await api.dataset()
    page = (await api.get(f"/datasets/{made['id']}/images?take=2&skip=3")).json()
    assert (page["total"], [image["path"] for image in page["data"]]) == (5, ["bad.png", "sub dir/ü #?.png"])
    assert [image["usable"] for image in page["data"]] == [False, True]
    last = page["data"][1]
    assert (last["width"], last["height"]) == (800, 400)
    thumbnail = await api.get(last["thumbnail"])
    assert thumbnail.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (256, 128)
    for name in (
        "bad.png",
        "none.png",
        "0.txt",
        "..%2f..%2fx.png",
        "%2e%2e/x",
        "/etc/passwd",
        ".influencerai-manifest.json",
    ):
        checked_error(await api.get(f"/datasets/{made['id']}/images/{name}/thumbnail"), 404)
    backwards = (await api.get(f"/datasets/{made['id']}/images?sortOrder=desc")).json()["data"]
    assert backwards[0]["path"] == "sub dir/ü #?.png"


async def test_captions(api: Api) -> None:
    folder = api.pictures()
    made = await api.dataset()
    path = f"/datasets/{made['id']}/images/0.png/caption"
    changed = (await api.send("PUT", path, json={"caption": "  ohwx,\n smiling "})).json()
    assert (changed["path"], changed["caption"], changed["captionSource"]) == ("0.png", "ohwx, smiling", "txt")
    assert "ohwx" in (folder / "0.txt").read_text()
    listed = (await api.get(f"/datasets/{made['id']}/images")).json()["data"][0]
    assert listed == changed
    assert (await api.send("PUT", path, json={"caption": ""})).json()["captionSource"] == "none"
    assert not (folder / "0.txt").exists()
    for caption in ("x" * 10_001, "a\0b", 7, None, "x" * 5000):
        assert field_errors(await api.send("PUT", path, json={"caption": caption}))
    assert not (folder / "0.txt").exists()
    for name in ("none.png", "0.txt", "%2e%2e/0.png"):
        target = f"/datasets/{made['id']}/images/{name}/caption"
        checked_error(await api.send("PUT", target, json={"caption": "x"}), 404)


async def test_report(api: Api) -> None:
    folder = api.pictures(count=3)
    (folder / "2.txt").unlink()
    made = await api.dataset(meta={"triggerWord": "zebra"})
    path = f"/datasets/{made['id']}/report"
    report = (await api.get(path)).json()
    assert [image["hasTrigger"] for image in report["images"]][:2] == [False, False]
    assert str(api.root) not in json.dumps(report)
    (folder / "3.png").write_bytes(picture(77))
    assert len((await api.get(path)).json()["images"]) == 3
    assert len((await api.get(f"{path}?refresh=true")).json()["images"]) == 4
    assert len((await api.get(path)).json()["images"]) == 4
    missing = await api.dataset(path="data/none")
    refusal = checked_error(await api.get(f"/datasets/{missing['id']}/report"), 400)
    assert "data/none" in refusal["message"]


async def test_delete_takes_only_what_was_uploaded(api: Api) -> None:
    folder = api.pictures(count=1)
    made = await api.dataset()
    await upload(api, made["id"], uploads(up__png=picture(5), up2__png=picture(6)))
    (folder / "up2.png").write_bytes(picture(7))  # changed by hand since
    assert (await api.delete(f"/datasets/{made['id']}")).json() == {"success": True, "warnings": []}
    assert sorted(tree(folder)) == ["0.png", "0.txt", "up2.png"]
    checked_error(await api.delete(f"/datasets/{made['id']}"), 404)
    first, second = await api.dataset(path="data/both"), await api.dataset(path="data/both/")
    await upload(api, first["id"], uploads(a__png=picture(5)))
    await api.delete(f"/datasets/{first['id']}")
    assert tree(api.root / "data/both") == {"a.png": picture(5)}
    await api.delete(f"/datasets/{second['id']}")
    assert not (api.root / "data/both").exists()


async def test_delete_while_jobs_use_it(any_api: Api) -> None:
    job = await any_api.job()
    path = f"/datasets/{job['payload']['datasetId']}"
    refusal = checked_error(await any_api.delete(path), 400)
    assert refusal["message"] == "Cannot delete dataset: 1 active jobs (pending/running) are using it"
    await any_api.post(f"/jobs/{job['id']}/cancel")
    assert (await any_api.delete(path)).status_code == 200


@pytest.fixture
async def linked(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Api]:
    """A root with links that lead out of it, and a secret that they lead to."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "data").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.png").write_bytes(picture(66))
    (outside / "secret.txt").write_text("a secret caption")
    (root / "data/out").symlink_to(outside)
    (root / "data/up").symlink_to("../..")
    (root / "data/round").symlink_to("round")
    (root / "data/in").symlink_to("real")
    async with running(Settings(root=root, database_url=sqlite_url)) as api:
        yield api


async def test_links_that_lead_out(linked: Api) -> None:
    outside = linked.root.parent / "outside"
    kept = tree(outside)
    body = {"kind": "lora-training", "path": ""}
    for path in ("data/out", "data/out/sub", "data/up", "data/up/outside", "data/up/root", "data/round"):
        answer = await linked.post("/datasets", {**body, "path": path})
        assert (answer.status_code == 201 and path == "data/up/root") or "path" in field_errors(answer), path
    linked.pictures("data/real")
    through = await linked.dataset(path="data/in")  # a link within the root is fine
    assert through["status"] == "ready"
    folder = linked.root / "data/real"
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "1.txt").unlink()
    (folder / "1.txt").symlink_to(outside / "secret.txt")
    report = await linked.get(f"/datasets/{through['id']}/report?refresh=true")
    assert "secret caption" not in report.text
    assert all(image["errors"] for image in report.json()["images"] if image["path"] == "link.png")
    checked_error(await linked.get(f"/datasets/{through['id']}/images/link.png/thumbnail"), 404)
    for name in ("link.png", "1.png"):
        target = f"/datasets/{through['id']}/images/{name}/caption"
        checked_error(await linked.send("PUT", target, json={"caption": "overwritten"}), 400, 404)
    uploads_there = uploads(link__png=picture(1))
    checked_error(await upload(linked, through["id"], uploads_there, replace="true"), 400)
    assert tree(outside) == kept

    later = await linked.dataset(path="data/later")
    (linked.root / "data/later").symlink_to(outside)
    assert (await linked.get(f"/datasets/{later['id']}")).json()["status"] == "failed"
    for method, path, options in (
        ("GET", "/report?refresh=true", {}),
        ("POST", "/images", {"files": uploads(a__png=picture(1))}),
        ("GET", "/images/secret.png/thumbnail", {}),
        ("PUT", "/images/secret.png/caption", {"json": {"caption": "overwritten"}}),
    ):
        answer = await linked.send(method, f"/datasets/{later['id']}{path}", **options)
        checked_error(answer, 400, 404)
    assert (await linked.delete(f"/datasets/{later['id']}")).status_code == 200
    assert tree(outside) == kept


async def test_no_path_leads_into_our_own_folder(api: Api) -> None:
    (api.root / ".influencerai/runs").mkdir(parents=True, exist_ok=True)
    (api.root / "data").mkdir()
    (api.root / "data/mine").symlink_to("../.influencerai")
    for path in (
        ".influencerai",
        ".influencerai/runs",
        "./.INFLUENCERAI",
        "data/../.influencerai",
        "data/.influencerai/x",
        "data/mine",
        "data/mine/runs",
    ):
        answer = await api.post("/datasets", {"kind": "lora-training", "path": path})
        assert "path" in field_errors(answer), path
    assert "outputPath" in field_errors(
        await api.post("/lora-configs", {"name": "x", "modelName": "y", "outputPath": ".influencerai/runs"})
    )


async def test_a_misspelt_trigger_word_is_kept_and_pointed_out(api: Api) -> None:
    api.pictures()
    made = await api.dataset(meta={"triggerwrod": "ohwx", "mine": 1})
    assert made["meta"] == {"triggerwrod": "ohwx", "mine": 1}
    assert made["warnings"][0] == "meta.triggerwrod is kept and not read: did you mean 'triggerWord'?"


async def test_the_kind_is_optional_and_the_path_names_a_folder(api: Api) -> None:
    for body in ({"path": "data/x"}, {"path": "data/x", "kind": None}):
        made = await api.post("/datasets", body)
        assert (made.status_code, made.json()["kind"]) == (201, "lora-training")
    for path in ("  ", "data/ ", "data/ /x"):
        assert field_errors(await api.post("/datasets", {"path": path})) == {"path": ["Path must name a folder"]}


async def test_a_second_dataset_on_a_folder_is_warned_of(api: Api) -> None:
    api.pictures()
    first, second = await api.dataset(), await api.dataset()
    assert not any("already" in text for text in first["warnings"])
    text = f"Dataset {first['id']} has the folder data/datasets/me already: what is changed in one is changed in all."
    assert text in second["warnings"]
    assert not any("already" in text for text in (await api.dataset(tenant="bob"))["warnings"])


def form(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart body of parts with their own headers of disposition."""
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; name=files; " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"
        for disposition, data in parts
    )
    return body + b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}


async def test_names_are_read_as_clients_send_them(api: Api) -> None:
    id = (await api.dataset())["id"]
    body, headers = form(
        ("filename=\"=?utf-8?B?MS3DpC5wbmc=?=\"; filename*=utf-8''1-%C3%A4.png", picture(1)),
        ("filename*=utf-8''2-%C3%A4.png", picture(2)),
        ('filename="=?utf-8?B?My3DpC5wbmc=?="', picture(3)),
        ('filename="C:\\Users\\me\\4.png"', picture(4)),
        ('filename="10_ohwx\\\\5.png"', picture(5)),
        ('filename="6 \\"six\\".png"', picture(6)),
        ('filename="7%20seven.png"', picture(7)),
        ("filename*=nonsense''8.png; filename=8.png", picture(8)),
    )
    answer = await api.send("POST", f"/datasets/{id}/images", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["added"] == sorted(
        ["1-ä.png", "2-ä.png", "3-ä.png", "4.png", "10_ohwx/5.png", '6 "six".png', "7 seven.png", "8.png"]
    )
    assert {"name": "7%20seven.png", "storedAs": "7 seven.png"} in answer.json()["renamed"]


async def test_an_archive_is_the_folder_that_was_packed(api: Api) -> None:
    id = (await api.dataset())["id"]
    packed = archive(
        {
            "set/10_ohwx woman/01.png": picture(1),
            "set/5_ohwx body/01.png": picture(2),
            "set/5_ohwx body/01.caption": b"ohwx, standing",
            "set/5_ohwx body/01_0160x0128_sd.npz": archive({"latents.npy": b"x"}),
            "set/.DS_Store": b"x",
        }
    )
    answer = (
        await upload(api, id, [("files", ("set.zip", packed)), ("files", ("b_te.npz", archive({"x": b"y"})))])
    ).json()
    assert answer["added"] == ["10_ohwx woman/01.png", "5_ohwx body/01.caption", "5_ohwx body/01.png"]
    assert {file["name"] for file in answer["skipped"]} == {
        *("set/.DS_Store", "set/5_ohwx body/01_0160x0128_sd.npz", "b_te.npz")
    }
    assert all(file["reason"] and file["remedy"] for file in answer["skipped"])
    images = (await api.get(f"/datasets/{id}/images")).json()["data"]
    assert [(image["path"], image["caption"]) for image in images] == [
        ("10_ohwx woman/01.png", "ohwx woman"),
        ("5_ohwx body/01.png", "ohwx, standing"),
    ]
    for image in images:
        assert (await api.get(image["thumbnail"])).status_code == 200
        path = image["thumbnail"].removesuffix("/thumbnail")
        changed = await api.send("PUT", f"{path}/caption", json={"caption": f"ohwx, {image['path'][0]}"})
        assert changed.json()["caption"] == f"ohwx, {image['path'][0]}"
    refreshed = (await api.get(f"/datasets/{id}/report?refresh=true")).json()["images"]
    assert [(image["caption"], image["repeats"]) for image in refreshed] == [("ohwx, 1", 10), ("ohwx, 5", 5)]
    assert (await api.delete(f"/datasets/{id}")).status_code == 200
    assert not (api.root / "data/datasets/me").exists()


async def test_pictures_with_a_percent_sign_have_thumbnails(api: Api) -> None:
    folder = api.pictures(count=0)
    (folder / "100% me.png").write_bytes(picture(1))
    id = (await api.dataset())["id"]
    images = (await api.get(f"/datasets/{id}/images")).json()["data"]
    assert (await api.get(images[0]["thumbnail"])).status_code == 200


async def test_the_body_of_an_upload_to_no_dataset_is_not_read(api: Api) -> None:
    mine = (await api.dataset())["id"]
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(2**16)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    for id, tenant in (("gone", "ann"), (mine, "bob")):
        answer = await api.send("POST", f"/datasets/{id}/images", content=body(), headers=headers, tenant=tenant)
        assert checked_error(answer, 404)["message"] == f"Dataset {id} not found"
    assert read == 0
