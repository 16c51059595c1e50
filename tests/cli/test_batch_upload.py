"""Uploads of a batch: what is here is trained on, and nobody else's pictures are touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from influencerai.client import InfluencerAIClient
from influencerai.settings import Settings
from tests.cli.batches import BatchPlace, place_beside_a_server, settings_there, write_pictures
from tests.cli.conftest import json_lines
from tests.databases import Databases
from tests.serve.sockets import Served

ONE = [{"name": "four", "networkDim": 4}]
LEO = "data/datasets/leo"


@pytest.fixture
def settings(tmp_path: Path, databases: Databases) -> Iterator[Settings]:
    """Of the server, whose root is empty."""
    with settings_there(tmp_path, databases) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchPlace:
    """A root whose file trains one config on leo."""
    place = place_beside_a_server(tmp_path, monkeypatch)
    place.write(datasets=[LEO], configs=ONE)
    return place


def upload(place: BatchPlace, server: Served, *arguments: str) -> Result:
    """Check and upload what the server does not have."""
    return place.batch("--server", server.url, "--upload", "--dry-run", *arguments)


def said(found: Result) -> str:
    """Without the folds of a table."""
    return "".join(found.stderr.split())


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".txt")}


def captions(client: InfluencerAIClient) -> dict[str, str]:
    [dataset] = client.datasets.list()
    return {image.path: image.caption for image in client.datasets.images(dataset.id)}


@pytest.mark.slow
def test_folders_of_the_same_name_go_to_datasets_of_their_own(
    place: BatchPlace, server: Served, client: InfluencerAIClient, settings: Settings, tmp_path: Path
) -> None:
    folders = [tmp_path / "a" / "photos", tmp_path / "b" / "photos"]
    for folder, character in zip(folders, ("ava", "leo"), strict=True):
        write_pictures(folder, character=character)
        for number, path in enumerate(sorted(folder.glob("*.png"))):
            path.with_suffix(".txt").rename(folder / f"{number}.txt")
            path.rename(folder / f"{number}.png")
        place.file = place.root / f"{character}.yaml"
        place.write(datasets=[str(folder)], configs=[{"name": character}])
        assert upload(place, server).exit_code == 0
    paths = [dataset.path for dataset in client.datasets.list(sort_order="asc")]
    assert len(set(paths)) == 2
    assert all(path.startswith("data/datasets/photos-") for path in paths)
    assert [bytes_in(settings.root / path) for path in paths] == [bytes_in(folder) for folder in folders]


@pytest.mark.slow
def test_a_colleagues_dataset_is_used_where_it_is_the_same_and_refused_where_not(
    place: BatchPlace, server: Served, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upload(place, server).exit_code == 0
    there = bytes_in(settings.root / LEO)
    colleague = tmp_path / "colleague"
    colleague.mkdir()
    monkeypatch.chdir(colleague)
    other = BatchPlace(colleague)
    other.write(datasets=[LEO], configs=[{"name": "other"}])
    assert upload(other, server).exit_code == 0
    (colleague / LEO / "leo_01.txt").write_text("a caption of the colleague's")
    found = upload(other, server)
    assert found.exit_code == 2
    assert "thatthisbatchhasnotfilled" in said(found)
    assert bytes_in(settings.root / LEO) == there


def test_pictures_that_lie_on_the_server_already_are_not_overwritten(
    place: BatchPlace, server: Served, settings: Settings
) -> None:
    write_pictures(settings.root / LEO, count=2)
    there = bytes_in(settings.root / LEO)
    for _ in range(2):  # that the first call has registered the folder makes it no more the batch's
        found = upload(place, server)
        assert found.exit_code == 2
        assert "thatthisbatchhasnotfilled" in said(found)
        assert bytes_in(settings.root / LEO) == there


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["leo_02.png", "leo_02.txt"])
def test_what_was_deleted_here_is_not_trained_on(
    gone: str, place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    assert upload(place, server).exit_code == 0
    (place.root / LEO / gone).unlink()
    if gone.endswith(".png"):
        (place.root / LEO / "leo_02.txt").unlink()
    found = place.batch("--server", server.url, "--upload")
    assert found.exit_code == 2
    [dataset] = client.datasets.list()
    assert "leo_02.png" in said(found)
    assert f"DELETE/datasets/{dataset.id}" in said(found)
    assert list(client.jobs.list()) == []
    client.datasets.delete(dataset.id)
    assert upload(place, server).exit_code == 0
    assert captions(client).get("leo_02.png", "") == ""


def test_a_dry_run_leaves_a_dataset_that_was_there_as_it_is(
    place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    assert upload(place, server).exit_code == 0
    before = captions(client)
    (place.root / LEO / "leo_01.txt").write_text("another caption")
    found = upload(place, server, "--json")
    assert found.exit_code == 0, found.output
    warnings = [line["message"] for line in json_lines(found.stdout) if line["type"] == "warning"]
    assert any("has changed since it was uploaded" in text for text in warnings)
    assert captions(client) == before


@pytest.mark.parametrize("fault", ["file", "config", "folder"])
def test_nothing_is_uploaded_before_all_else_is_right(
    fault: str, place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    assert upload(place, server).exit_code == 0
    before = captions(client)
    (place.root / LEO / "leo_01.txt").write_text("another caption")
    faults: dict[str, dict[str, Any]] = {
        "file": {"datasets": [LEO], "configs": [*ONE, {"name": "wrong", "epochs": 0}]},
        "config": {"datasets": [LEO], "configs": [*ONE, {"name": "taken"}]},
        "folder": {"datasets": [LEO, "data/datasets/absent"], "configs": ONE},
    }
    client.lora_configs.create(name="leo-taken", model_name="sd15", network_dim=64)
    place.write(**faults[fault])
    found = place.batch("--server", server.url, "--upload", "--json")
    assert found.exit_code == 2
    errors = json_lines(found.stdout)[-1]["fieldErrors"]
    assert len(errors) == 1, json.dumps(errors)
    assert captions(client) == before
    assert [dataset.path for dataset in client.datasets.list()] == [LEO]
