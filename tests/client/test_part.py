"""The part that a download grows in: one download's alone, and where the next goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from influencerai.client.part import claimed_part

SHA256 = "a" * 64


def test_what_is_left_is_gone_on_with_and_nothing_is_left_of_nothing(tmp_path: Path) -> None:
    with claimed_part(tmp_path, SHA256) as part:
        part.write_bytes(b"begun")
    with claimed_part(tmp_path, SHA256) as again:
        assert (again, again.read_bytes()) == (part, b"begun")
        part.write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


def test_a_second_one_at_once_is_another_file_which_goes(tmp_path: Path) -> None:
    with claimed_part(tmp_path, SHA256) as part:
        part.write_bytes(b"begun")
        with claimed_part(tmp_path, SHA256) as other:
            assert (other.parent, other.read_bytes()) == (tmp_path, b"")
            assert other != part
            other.write_bytes(b"mine")
        assert list(tmp_path.iterdir()) == [part]
        assert part.read_bytes() == b"begun"


def test_a_part_that_got_its_name_is_no_part_any_more(tmp_path: Path) -> None:
    with claimed_part(tmp_path, SHA256) as part:
        part.replace(tmp_path / "whole")  # empty, as a file may be
        with claimed_part(tmp_path, SHA256) as next_part:
            assert next_part == part
            next_part.write_bytes(b"begun")
    assert ((tmp_path / "whole").read_bytes(), part.read_bytes()) == (b"", b"begun")


def test_a_killed_process_leaves_its_part_to_the_next(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from influencerai.client.part import claimed_part\n"
        f"with claimed_part(Path(sys.argv[1]), '{SHA256}') as part:\n"
        "    part.write_bytes(b'begun'); print(part, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        part = Path(process.stdout.readline().rstrip())
        with claimed_part(tmp_path, SHA256) as other:
            assert other != part
        process.kill()
        process.wait(30)
        with claimed_part(tmp_path, SHA256) as again:
            assert (again, again.read_bytes()) == (part, b"begun")


def test_what_is_no_file_of_its_own_makes_room(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    part = tmp_path / f".influencerai-{SHA256}.part"
    for make in (part.symlink_to, part.hardlink_to, lambda _: os.mkfifo(part)):
        make(tmp_path / "mine")
        with claimed_part(tmp_path, SHA256) as found:
            assert (found, found.read_bytes()) == (part, b"")
            found.write_bytes(b"begun")
        part.unlink()
    assert (tmp_path / "mine").read_bytes() == b"mine"
