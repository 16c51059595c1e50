"""Snapshots of a job's images: content-addressed, shared, and independent of the user's folder."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from influencerai.dataset import inspect_dataset, samples
from influencerai.dataset.snapshot import discard_states, release_snapshot, restore_snapshot, take_snapshot
from influencerai.domain import SampleSpec, TrainingSpec
from influencerai.errors import DatasetError, StoppedError
from influencerai.files import atomic_file
from influencerai.train.backend import load_backend
from influencerai.train.runs.training_state import list_states
from tests.small_models import small_sd15
from tests.training_runs import RunPlace, make_config, make_settings, make_spec, stop_after, write_dataset


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TrainingSpec:
    """Of the pictures of `write_dataset`, one of them in a folder of its own."""
    place = tmp_path_factory.mktemp("spec")
    return make_spec(make_config(small_sd15(place / "model")), write_source(place), settings=make_settings(place))


def write_source(root: Path) -> Path:
    source = write_dataset(root / "me", count=4)
    (source / "3_ohwx woman").mkdir()
    (source / "03.png").rename(source / "3_ohwx woman" / "03.png")
    return source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path)


def blobs(root: Path) -> list[Path]:
    return sorted((root / "blobs").glob("*/*"))


def take(spec: TrainingSpec, source: Path, root: Path, run: str = "run") -> Path:
    return take_snapshot(spec, source, run_dir=root / run, blobs_dir=root / "blobs")


def is_whole(folder: Path, spec: TrainingSpec) -> bool:
    return samples(inspect_dataset(folder)) != () and all(
        atomic_file.sha256_file(folder / sample.path) == sample.sha256 for sample in spec.samples
    )


def test_a_snapshot_is_by_content_read_only_and_linked(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    folder = take(spec, source, tmp_path)
    assert is_whole(folder, spec)
    assert sorted(blob.name for blob in blobs(tmp_path)) == sorted(sample.sha256 for sample in spec.samples)
    for sample in spec.samples:
        blob = tmp_path / "blobs" / sample.sha256[:2] / sample.sha256
        assert blob.samefile(folder / sample.path)
        assert blob.stat().st_mode & 0o777 == 0o444
        assert not blob.samefile(source / sample.path)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["00.png", "01.png", "02.png", "03.png"]


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o400), (0o027, 0o440)])
def test_a_snapshot_is_for_those_alone_who_may_read_the_servers_files(
    spec: TrainingSpec, source: Path, tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        take(spec, source, tmp_path)
    finally:
        os.umask(before)
    assert {blob.stat().st_mode & 0o777 for blob in blobs(tmp_path)} == {mode}


def test_editing_in_place_and_deleting_change_nothing(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    folder = take(spec, source, tmp_path)
    with (source / "00.png").open("r+b") as file:
        file.write(b"edited")
    assert is_whole(folder, spec)
    shutil.rmtree(source)
    assert is_whole(take(spec, source, tmp_path), spec), "what is there is not copied again"


def test_an_image_that_changed_after_the_look_is_named(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    with (source / "02.png").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DatasetError, match=r"02\.png changed while the job was being prepared"):
        take(spec, source, tmp_path)
    (source / "02.png").unlink()
    with pytest.raises(DatasetError, match=r"02\.png: .*No such file"):
        take(spec, source, tmp_path)


def test_a_link_out_of_the_folder_is_not_copied(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    (source / "02.png").rename(tmp_path / "outside.png")
    (source / "02.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DatasetError, match="leaves the folder"):
        take(spec, source, tmp_path)


def test_two_runs_share_blobs_until_the_last_lets_go(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    first, second = (take(spec, source, tmp_path, run) for run in ("first", "second"))
    assert (first / "00.png").samefile(second / "00.png")
    release_snapshot(tmp_path / "first", tmp_path / "blobs")
    assert not first.exists()
    assert is_whole(second, spec)
    assert len(blobs(tmp_path)) == 4
    release_snapshot(tmp_path / "second", tmp_path / "blobs")
    release_snapshot(tmp_path / "second", tmp_path / "blobs")
    assert blobs(tmp_path) == []


def test_what_is_missing_or_altered_is_restored(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    folder = take(spec, source, tmp_path)
    (folder / "00.png").unlink()
    (folder / "01.png").unlink()
    (folder / "01.png").write_bytes(b"torn")
    shutil.rmtree(folder / "3_ohwx woman")
    assert restore_snapshot(spec, run_dir=tmp_path / "run", blobs_dir=tmp_path / "blobs") == folder
    assert is_whole(folder, spec)
    assert not list(folder.rglob(".*"))


def test_an_image_that_is_nowhere_is_named(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    folder = take(spec, source, tmp_path)
    shutil.rmtree(tmp_path / "blobs")
    assert is_whole(restore_snapshot(spec, run_dir=tmp_path / "run", blobs_dir=tmp_path / "blobs"), spec)
    (folder / "01.png").unlink()
    with pytest.raises(DatasetError, match=r"copy of 01\.png is gone"):
        restore_snapshot(spec, run_dir=tmp_path / "run", blobs_dir=tmp_path / "blobs")


def test_runs_that_come_and_go_at_once_do_not_take_each_others_images(
    spec: TrainingSpec, source: Path, tmp_path: Path
) -> None:
    def come_and_go(number: int) -> bool:
        whole = True
        for _ in range(20):
            whole = whole and is_whole(take(spec, source, tmp_path, f"run-{number}"), spec)
            release_snapshot(tmp_path / f"run-{number}", tmp_path / "blobs")
        return whole

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(come_and_go, range(4))) == [True] * 4
    assert blobs(tmp_path) == []


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
def test_where_there_are_no_hard_links_images_are_copied(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm") / f"influencerai-test-{os.getpid()}"
    if elsewhere.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("both lie on one file system")
    try:
        folder = take_snapshot(spec, source, run_dir=tmp_path / "run", blobs_dir=elsewhere)
        assert is_whole(folder, spec)
        assert not any(path.is_symlink() for path in folder.rglob("*"))
        release_snapshot(tmp_path / "run", elsewhere)
        assert not list(elsewhere.glob("*/*"))
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


@pytest.mark.slow
def test_states_are_discarded_and_the_history_stays(tmp_path: Path) -> None:
    model, dataset = small_sd15(tmp_path / "model"), write_dataset(tmp_path / "dataset")
    spec = make_spec(make_config(model), dataset, settings=make_settings(tmp_path))
    place = RunPlace(tmp_path, dataset=dataset)
    with pytest.raises(StoppedError):
        load_backend("diffusers").train(spec, place.context(should_stop=stop_after(1)))
    assert list_states(place.run_dir)
    for folder in (place.run_dir, place.output):
        (folder / ".influencerai-0123456789abcdef.tmp").write_bytes(b"interrupted")
    discard_states(place.run_dir, place.output)
    assert [path.name for path in place.run_dir.iterdir()] == ["history.jsonl"]
    assert not list(place.output.iterdir())


def test_the_same_image_twice_is_one_blob(spec: TrainingSpec, source: Path, tmp_path: Path) -> None:
    twin = SampleSpec(**{**spec.samples[0].model_dump(), "path": "twin.png"})
    shutil.copy(source / "00.png", source / "twin.png")
    doubled = spec.model_copy(update={"samples": (*spec.samples, twin)})
    folder = take(doubled, source, tmp_path)
    assert (folder / "twin.png").samefile(folder / "00.png")
    release_snapshot(tmp_path / "run", tmp_path / "blobs")
    assert blobs(tmp_path) == []
