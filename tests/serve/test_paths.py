"""Paths of every kind that users may name: nothing outside of the tenant's root is ever opened or made."""

from __future__ import annotations

import asyncio
import mimetypes
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import influencerai
from influencerai.domain.output_path import RUN_MARKER
from influencerai.settings import Settings
from tests.serve.running import Api, field_errors, picture, running

WORDS = (
    ". .. ..; ... ~ ~root C: \\ * $HOME | CON %2e%2e %00 etc passwd "
    "data me real out .influencerai .INFLUENCERAI runs secret.png 0.png ü"
)
PIECES = st.sampled_from(["", " ", "a b", "\0", "\n", "\u2025", "\u202e", "x" * 300, *WORDS.split()])
PATHS = st.lists(PIECES, min_size=1, max_size=5).flatmap(
    lambda parts: st.sampled_from(["/", "//", "\\"]).map(lambda separator: separator.join(parts))
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_watched: list[tuple[str, str]] = []
_is_watching = False
_DESCRIPTORS = "/proc/self/fd/"


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_watching and event in (
        "open",
        "os.mkdir",
        "os.scandir",
        "os.listdir",
        "os.remove",
        "os.rename",
        "os.link",
        "os.rmdir",
    ):
        for path in arguments[:2]:
            if isinstance(path, str | bytes):
                _watched.append((event, _place(path.decode(errors="replace") if isinstance(path, bytes) else path)))


def _place(path: str) -> str:
    """The path, of an open folder the folder's own: so are files opened that links must not lead away from."""
    if not path.startswith(_DESCRIPTORS):
        return path
    number, *rest = path.removeprefix(_DESCRIPTORS).split("/", 1)
    return "/".join([str(Path(f"{_DESCRIPTORS}{number}").readlink()), *rest])


sys.addaudithook(_watch)
mimetypes.init()  # else the client reads the system's table of types


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """What is opened, listed, made or removed in the block, by this process."""
    global _is_watching
    _watched.clear()
    _is_watching = True
    try:
        yield _watched
    finally:
        _is_watching = False


@pytest.mark.slow
@pytest.mark.parametrize("what", ["dataset", "output", "image", "artifact"])
def test_no_path_leaves_the_root(tmp_path: Path, sqlite_url: str, what: str) -> None:
    root = tmp_path / "root"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(picture(9))
    runner = asyncio.Runner()
    opened = running(Settings(root=root, database_url=sqlite_url))
    try:
        api: Api = runner.run(opened.__aenter__())
        api.pictures("data/me")
        (root / "data/out").symlink_to(outside)
        (root / "data/me/out").symlink_to(outside)
        dataset = runner.run(api.dataset(path="data/me"))
        job = runner.run(api.job(datasetId=dataset["id"]))
        imports = (sys.prefix, sys.base_prefix, str(Path(influencerai.__file__).parents[1]))
        allowed = (str(root), str(Path(sqlite_url.removeprefix("sqlite:///"))), *imports, "/dev/")

        async def request(path: str) -> Any:
            encoded = quote(path, safe="", errors="replace")
            if what == "dataset":
                answer = await api.send("POST", "/datasets", json={"kind": "lora-training", "path": path})
                if answer.status_code == 201:
                    id = answer.json()["id"]
                    await api.get(f"/datasets/{id}/images")
                    await api.send("POST", f"/datasets/{id}/images", files={"files": ("up.png", picture())})
                    await api.delete(f"/datasets/{id}")
            elif what == "output":
                body = {"name": "x", "modelName": "sd15", "outputPath": path}
                answer = await api.send("POST", "/lora-configs", json=body)
                if answer.status_code == 201:
                    draft = {
                        "type": "lora-training",
                        "payload": {"datasetId": dataset["id"], "loraConfigId": answer.json()["id"]},
                    }
                    made = await api.post("/jobs", draft)
                    assert not Path(api.service.folders.resolve("ann", "data/me")).is_relative_to(outside)
                    await api.post(f"/jobs/{made.json()['id']}/cancel")
                    await api.delete(f"/jobs/{made.json()['id']}")
                    await api.delete(f"/lora-configs/{answer.json()['id']}")
            elif what == "image":
                images = f"/datasets/{dataset['id']}/images/{encoded}"
                answer = await api.get(f"{images}/thumbnail")
                await api.send("PUT", f"{images}/caption", json={"caption": "mine"})
                await api.send("POST", f"/datasets/{dataset['id']}/images", files={"files": (path or "x", picture(3))})
            else:
                answer = await api.get(f"/jobs/{job['id']}/artifacts/{encoded}")
            return answer

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(path=PATHS)
        def check(path: str) -> None:
            with watched() as seen:
                answer = runner.run(request(path))
            assert answer.status_code < 500, answer.text
            for event, place in seen:
                if place.startswith("/") and place != tempfile.gettempdir():  # where uploads have a file without a name
                    assert place.startswith(allowed) or "influencerai" in place, (event, place, path)
                assert not place.startswith(str(outside)), (event, place, path)
            assert [item.name for item in outside.iterdir()] == ["secret.png"]
            assert sorted(item.name for item in tmp_path.iterdir()) == ["outside", "root"]

        check()
        runner.run(opened.__aexit__(None, None, None))
    finally:
        runner.close()


@pytest.mark.anyio
async def test_what_the_file_system_refuses_is_said_without_the_roots_place(api: Api) -> None:
    job = await api.failed_job()
    folder = api.root / "data/loras/portrait-0"
    (folder / "portrait-0-final.safetensors").mkdir(parents=True)  # a folder, which cannot be removed as a file
    (folder / RUN_MARKER).write_text(job["id"])
    answer = await api.delete(f"/jobs/{job['id']}")
    assert answer.status_code == 500
    assert "data/loras/portrait-0/portrait-0-final.safetensors" in answer.json()["message"]
    assert str(api.root) not in answer.text
    assert (await api.get(f"/jobs/{job['id']}")).status_code == 200


@pytest.mark.slow
@pytest.mark.anyio
async def test_an_output_path_must_not_follow_a_link_away(api: Api, tmp_path: Path) -> None:
    """Out of the root, or into our own folder: refused at once, as a dataset's path is."""
    (api.root / "data").mkdir()
    (api.root / ".influencerai").mkdir(exist_ok=True)
    (api.root / "data/out").symlink_to(tmp_path.parent)
    (api.root / "data/own").symlink_to(api.root / ".influencerai")
    config = await api.config()
    for path in ("data/out/me", "data/own/me", "data/own"):
        for answer in (
            await api.post("/lora-configs", {"name": "x", "modelName": "sd15", "outputPath": path}),
            await api.patch(f"/lora-configs/{config['id']}", {"outputPath": path}),
        ):
            assert "link" in field_errors(answer)["outputPath"][0], path


@pytest.mark.anyio
async def test_a_dry_run_shows_no_folder_of_the_installation(tmp_path: Path, sqlite_url: str) -> None:
    models = tmp_path / "elsewhere" / "models"
    settings = Settings(root=tmp_path / "root", database_url=sqlite_url, models_dir=models, allow_downloads=False)
    async with running(settings) as api:
        api.pictures()
        dataset, config = await api.dataset(), await api.config(modelName="org/model")
        payload = {"datasetId": dataset["id"], "loraConfigId": config["id"]}
        answer = await api.post("/jobs?dryRun=true", {"type": "lora-training", "payload": payload})
        assert "models/org/model" in answer.text
        for folder in (tmp_path, Path(sys.prefix), Path(influencerai.__file__).parent, Path.home()):
            assert f"{folder}/" not in answer.text
