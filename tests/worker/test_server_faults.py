"""Strikes at the server: what it has answered stays, and its workers neither outlive it nor lose their jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Databases
from tests.servers import Server
from tests.worker.workplace import TENANT, Workplace, marked, workplace

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

CONFIG = {"modelName": "influencerai/tiny-avatars"}


class Serving:
    """`influencerai serve` over a workplace, as a process to strike."""

    def __init__(self, place: Workplace) -> None:
        self._log = place.root / "server.log"
        command = [str(Path(sys.executable).with_name("influencerai")), "serve", "--no-ray", "--port", "0"]
        names = ("root", "database_url", "lease_seconds", "cancel_grace_seconds", "threads", "device", "min_free_mib")
        document = place.settings.to_document()
        given = {f"INFLUENCERAI_{name.upper()}": str(document[name]) for name in names}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**place.environment(), **given, "INFLUENCERAI_ALLOW_DOWNLOADS": "false"},
                start_new_session=True,
            )
        place.until(self._port, seconds=90)
        self.server = Server(port=self._port(), root=place.root, log=self._log)

    def _port(self) -> int:
        assert self.process.poll() is None, self._log.read_text()
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", self._log.read_text())
        return int(found[1]) if found else 0

    def interrupt(self) -> int:
        """Ctrl-C, which reaches the whole group; the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def place(databases: Databases, tmp_path: Path) -> Iterator[Workplace]:
    url = databases.new("sqlite")
    with workplace(tmp_path / "root", url) as opened:
        yield opened
    databases.give_back(url)


@pytest.mark.campaign
def test_what_a_killed_server_has_answered_is_there(place: Workplace) -> None:
    serving = Serving(place)
    id = place.submit(epochs=30)
    answered: list[str] = []
    writer = threading.Thread(target=write_until_it_dies, args=(serving.server, answered))
    writer.start()
    place.wait_for_step(id, 6)
    serving.process.kill()
    serving.process.wait()
    writer.join()
    assert len(answered) > 10
    place.until(lambda: not marked(place.mark), seconds=60)
    assert place.job(id).status == "pending"

    serving = Serving(place)
    for location in answered:
        assert serving.server.ask("GET", location, tenant=TENANT).status == 200
    listed = serving.server.ask("GET", "/lora-configs?take=1", tenant=TENANT)
    assert int(listed.headers["x-total-count"]) - 1 - len(answered) in (0, 1), "the last write was not answered"
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["released", "completed"]
    serving.interrupt()
    place.check_idle()


@pytest.mark.campaign
def test_an_interrupted_server_gives_its_jobs_back(place: Workplace) -> None:
    serving = Serving(place)
    id = place.submit(epochs=16)
    place.wait_for_step(id, 6)
    code = serving.interrupt()
    assert code == 0, serving.server.log_tail()
    assert marked(place.mark) == []
    assert "Traceback" not in serving.server.log_tail()
    stopped_at = place.steps(id)
    assert (place.run_dir(id) / f"state-{stopped_at:08}.safetensors").exists()
    job = place.job(id)
    assert (job.status, job.waiting) == ("pending", "It waits for a free worker.")
    assert place.outcomes(id) == ["released"]

    serving = Serving(place)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["released", "completed"]
    assert serving.interrupt() == code
    assert marked(place.mark) == []


@pytest.mark.campaign
def test_a_second_interrupt_ends_a_server_at_once(place: Workplace) -> None:
    serving = Serving(place)
    id = place.submit(epochs=30)
    place.wait_for_step(id, 6)
    os.kill(place.child(id), signal.SIGSTOP)  # so that the first one has to wait
    os.killpg(serving.process.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        serving.process.wait(2)
    os.killpg(serving.process.pid, signal.SIGINT)
    assert serving.process.wait(15) != 0
    place.until(lambda: not marked(place.mark), seconds=place.settings.cancel_grace_seconds + 20)
    place.staff(1)
    place.wait(id)
    place.check_undisturbed(id)


def write_until_it_dies(server: Server, answered: list[str]) -> None:
    """One write after the other; where those are to be found that were answered."""
    number = 0
    while True:
        number += 1
        try:
            answer = server.ask("POST", "/lora-configs", {"name": f"number {number}", **CONFIG}, tenant=TENANT)
        except OSError:
            return
        assert answer.status == 201, answer.body
        answered.append(f"/lora-configs/{json.loads(answer.body)['id']}")
