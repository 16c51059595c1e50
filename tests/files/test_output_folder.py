"""An output folder belongs to one run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from influencerai.domain.output_path import RUN_MARKER
from influencerai.errors import ExportError
from influencerai.files import output_folder


class TestReserveOutput:
    FIRST = "1111111122222222"
    SECOND = "3333333344444444"

    def test_a_run_keeps_its_folder(self, tmp_path: Path) -> None:
        folder = output_folder.reserve_output(tmp_path / "loras" / "me", self.FIRST)
        (folder / "me-final.safetensors").write_bytes(b"")
        assert folder == tmp_path / "loras" / "me"
        assert output_folder.reserve_output(tmp_path / "loras" / "me", self.FIRST) == folder

    def test_another_run_gets_a_folder_of_its_own_and_keeps_it(self, tmp_path: Path) -> None:
        output_folder.reserve_output(tmp_path / "me", self.FIRST)
        for _ in range(2):
            assert output_folder.reserve_output(tmp_path / "me", self.SECOND) == tmp_path / "me-33333333"

    def test_ids_that_begin_alike_need_the_whole_id_as_suffix(self, tmp_path: Path) -> None:
        jobs = [f"01981f4a-7c3e-7{number}00-8000-000000000000" for number in range(3)]
        folders = [output_folder.reserve_output(tmp_path / "me", job, suffix=job) for job in jobs]
        assert [folder.name for folder in folders] == ["me", f"me-{jobs[1]}", f"me-{jobs[2]}"]
        assert [output_folder.reserve_output(tmp_path / "me", job, suffix=job) for job in jobs] == folders
        assert [(folder / RUN_MARKER).read_text() for folder in folders] == jobs

    def test_a_users_own_files_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "me").mkdir()
        (tmp_path / "me" / "downloaded.safetensors").write_bytes(b"")
        assert output_folder.reserve_output(tmp_path / "me", self.FIRST) == tmp_path / "me-11111111"
        assert [file.name for file in (tmp_path / "me").iterdir()] == ["downloaded.safetensors"]

    def test_a_folder_with_other_files_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "me").mkdir()
        (tmp_path / "me" / "notes.txt").write_bytes(b"")
        assert output_folder.reserve_output(tmp_path / "me", self.FIRST) == tmp_path / "me"

    def test_no_place_left_is_an_error(self, tmp_path: Path) -> None:
        output_folder.reserve_output(tmp_path / "me", self.FIRST)
        output_folder.reserve_output(tmp_path / "me-33333333", self.FIRST)
        with pytest.raises(ExportError, match="other runs"):
            output_folder.reserve_output(tmp_path / "me", self.SECOND)

    def test_a_file_in_the_place_of_the_folder_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "me").write_bytes(b"")
        with pytest.raises(ExportError, match="cannot be made"):
            output_folder.reserve_output(tmp_path / "me", self.FIRST)

    def test_of_many_runs_at_once_each_gets_its_own(self, tmp_path: Path) -> None:
        runs = [f"{number:08d}" for number in range(8)]
        with ThreadPoolExecutor(len(runs)) as pool:
            folders = list(pool.map(lambda run: output_folder.reserve_output(tmp_path / "me", run), runs))
        assert len(set(folders)) == len(runs)
        assert tmp_path / "me" in folders
        for folder, run in zip(folders, runs, strict=True):
            assert (folder / RUN_MARKER).read_text() == run

    def test_a_marker_that_is_no_text_is_another_runs(self, tmp_path: Path) -> None:
        (tmp_path / "me").mkdir()
        (tmp_path / "me" / RUN_MARKER).write_bytes(b"\xff\xfe")
        output_folder.release_output(tmp_path / "me", self.FIRST)
        assert output_folder.reserve_output(tmp_path / "me", self.FIRST) == tmp_path / "me-11111111"
