"""A file is the old one or the new one, never a part of either."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from influencerai.errors import InfluencerAIError
from influencerai.files import atomic_file


class TestWriteAtomic:
    def test_replaces_the_content_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "new folder" / "state.json"
        atomic_file.write_atomic(path, b"old")
        atomic_file.write_atomic(path, b"new", sync=False)
        assert path.read_bytes() == b"new"
        assert [file.name for file in path.parent.iterdir()] == ["state.json"]

    def test_a_refusal_keeps_the_old_file_and_names_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "taken.json"
        folder.mkdir()
        (folder / "content").write_bytes(b"old")
        with pytest.raises(InfluencerAIError, match=r"taken\.json cannot be written"):
            atomic_file.write_atomic(folder, b"new")
        assert (folder / "content").read_bytes() == b"old"
        assert [file.name for file in tmp_path.iterdir()] == ["taken.json"]

    def test_a_file_in_the_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(InfluencerAIError, match="cannot be written"):
            atomic_file.write_atomic(tmp_path / "file" / "state.json", b"new")

    @pytest.mark.slow
    def test_what_a_killed_writer_left_is_removed(self, tmp_path: Path) -> None:
        process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(tmp_path,))
        process.start()
        process.join()
        assert len(list(tmp_path.iterdir())) == 1
        atomic_file.write_atomic(tmp_path / "kept.json", b"kept")
        assert atomic_file.remove_leftovers(tmp_path) == 1
        assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]

    def test_fresh_leftovers_may_be_spared(self, tmp_path: Path) -> None:
        for name, age in (("old", 1000), ("fresh", 10)):
            path = tmp_path / f".influencerai-{name}.tmp"
            path.write_bytes(b"part")
            os.utime(path, (time.time() - age,) * 2)
        assert atomic_file.remove_leftovers(tmp_path, older_than=900) == 1
        assert [file.name for file in tmp_path.iterdir()] == [".influencerai-fresh.tmp"]
        assert atomic_file.remove_leftovers(tmp_path) == 1


def _write_and_die(folder: Path) -> None:
    """Die as if killed, between writing the bytes and renaming."""

    os.fsync = os._exit  # type: ignore[assignment]
    atomic_file.write_atomic(folder / "never.json", b"bytes")


def test_sha256_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    assert atomic_file.sha256_file(path) == hashlib.sha256(b"x" * 300_000).hexdigest()
