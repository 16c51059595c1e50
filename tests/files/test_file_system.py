"""Links, locks, modes and synced names where the file system lacks them."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from influencerai.domain.output_path import RUN_MARKER
from influencerai.errors import ExportError, InfluencerAIError
from influencerai.files import atomic_file, file_system, output_folder

ROOT = Path(__file__).parents[2]
UNDER_IT = (
    "tests/train/test_trainer.py::test_a_stopped_run_is_resumed_by_its_output_path",
    "tests/dataset/uploads/test_upload.py::TestUpload::test_images_captions_and_tables_arrive_together",
)
"""Tests that must pass on a file system without links, locks, modes and synced folders."""
MORE_UNDER_IT = (
    "tests/train/test_trainer.py::test_two_processes_do_not_train_one_run",
    "tests/train/test_trainer.py::test_another_runs_files_are_not_overwritten",
    "tests/contract/test_training.py",
)
"""What must pass there too, and takes longer."""


def refusing(number: int) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's calls as such a file system answers them."""
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    monkeypatch.setattr(os, "chmod", refusing(errno.EPERM))
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - the link is followed
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("plain")
def test_an_output_folder_belongs_to_one_run_without_links(tmp_path: Path) -> None:
    folder = tmp_path / "loras" / "me"
    assert output_folder.reserve_output(folder, "a" * 64) == folder
    assert output_folder.reserve_output(folder, "a" * 64) == folder
    assert output_folder.reserve_output(folder, "b" * 64) == tmp_path / "loras" / "me-bbbbbbbb"
    assert (folder / RUN_MARKER).read_text() == "a" * 64
    assert [path.name for path in folder.iterdir()] == [RUN_MARKER]


@pytest.mark.usefixtures("plain")
def test_of_many_that_create_a_file_without_links_one_succeeds(tmp_path: Path) -> None:
    def create(number: int) -> bool:
        try:
            file_system.create_exclusively(tmp_path / "marker", str(number).encode())
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(32)))
    assert sum(outcomes) == 1
    assert (tmp_path / "marker").read_text() == str(outcomes.index(True))


@pytest.mark.usefixtures("plain")
def test_a_lock_without_flock_holds_and_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("ab") as first, path.open("ab") as second:
        with (
            file_system.file_lock(first.fileno(), path),
            pytest.raises(BlockingIOError, match=r"delete .*lock\.held"),
            file_system.file_lock(second.fileno(), path),
        ):
            pass
        with file_system.file_lock(second.fileno(), path, wait=True):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


@pytest.mark.usefixtures("plain")
def test_a_lock_without_flock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = multiprocessing.get_context("fork").Process(target=_lock_and_die, args=(path,))
    process.start()
    process.join()
    assert (tmp_path / "lock.held").exists()
    with path.open("ab") as file, file_system.file_lock(file.fileno(), path):
        pass


@pytest.mark.usefixtures("plain")
def test_a_lock_without_flock_that_was_cut_off_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    (tmp_path / "lock.held").write_bytes(b"12")
    os.utime(tmp_path / "lock.held", (0, 0))
    with path.open("ab") as file, file_system.file_lock(file.fileno(), path):
        pass


@pytest.mark.usefixtures("plain")
def test_a_lock_without_flock_of_another_machine_counts(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    (tmp_path / "lock.held").write_text("1\nelsewhere\n")
    with path.open("ab") as file, pytest.raises(BlockingIOError), file_system.file_lock(file.fileno(), path):
        pass


def _lock_and_die(path: Path) -> None:
    with path.open("ab") as file, file_system.file_lock(file.fileno(), path):
        os._exit(9)


@pytest.mark.usefixtures("plain")
def test_modes_and_synced_names_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    atomic_file.write_atomic(tmp_path / "state", b"bytes")
    file_system.set_mode(tmp_path / "state", 0o444)
    assert (tmp_path / "state").read_bytes() == b"bytes"


def test_a_refusal_names_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = file_system.type_of(tmp_path)
    assert kind
    monkeypatch.setattr(Path, "replace", refusing(errno.EPERM))
    with pytest.raises(InfluencerAIError, match=rf"not permitted \(the file system there is {kind}\)"):
        atomic_file.write_atomic(tmp_path / "state", b"bytes")
    monkeypatch.setattr(Path, "mkdir", refusing(errno.EPERM))
    with pytest.raises(ExportError, match=r"cannot be made: .*the file system there is"):
        output_folder.reserve_output(tmp_path / "new", "a" * 64)


def test_other_failures_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr(os, "link", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        file_system.link_or_copy(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(InfluencerAIError, match="Input/output"):
        atomic_file.write_atomic(tmp_path / "state", b"bytes")


@pytest.mark.campaign
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the library that refuses is compiled here")
@pytest.mark.parametrize("tests", [UNDER_IT, MORE_UNDER_IT], ids=["resuming", "jobs"])
def test_training_resuming_uploading_and_jobs_work_on_a_plain_file_system(
    tests: tuple[str, ...], tmp_path: Path
) -> None:
    library = tmp_path / "plain.so"
    source = Path(__file__).with_name("plain_file_system.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", library, source, "-ldl"], check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
