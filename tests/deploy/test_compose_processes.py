"""The services of compose.yaml as processes of this machine: they find each other, train a job, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from influencerai.demo.characters import write_character
from tests.databases import Databases
from tests.deploy.clusters import LOOPBACK, Programs, free_port, programs
from tests.deploy.manifests import ROOT
from tests.deploy.test_compose import HEAD, services
from tests.servers import Server
from tests.worker.workplace import children

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts folders over others"),
]
CONTAINER = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
SHARED_MEMORY = ("sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$0" "$@"')
CONFIG = {
    "name": "Portrait",
    "modelName": "influencerai/tiny-avatars",
    "epochs": 1,
    "batchSize": 10,
    "resolution": 128,
    "networkDim": 4,
    "networkAlpha": 2,
}


class Composed:
    """The services, with addresses of this machine for those of compose's network."""

    def __init__(self, running: Programs, root: Path, url: str) -> None:
        self._running = running
        self._head = free_port()
        self.server = Server(port=free_port("127.0.0.1"), root=root, log=running.log)
        self._own = {
            "INFLUENCERAI_DATABASE_URL": url,
            "INFLUENCERAI_ROOT": str(root),
            "INFLUENCERAI_PORT": str(self.server.port),
            "INFLUENCERAI_HOST": "127.0.0.1",
            "INFLUENCERAI_MIN_FREE_MIB": "0",
            "INFLUENCERAI_THREADS": "1",
            "RAY_ADDRESS": f"{LOOPBACK}:{self._head}",
            "RAY_AUTH_TOKEN": running.environment["RAY_AUTH_TOKEN"],
        }

    def environment(self, name: str) -> dict[str, str]:
        given: dict[str, str] = services()[name]["environment"]
        return {variable: self._own.get(variable, value) for variable, value in given.items()} | {
            variable: value for variable, value in self._own.items() if not variable.startswith("RAY_")
        }

    def start(self, name: str, *more: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a service as in a container: with shared memory and processes of its own, which end with the first."""
        places = {"api:6379": f"{LOOPBACK}:{self._head}", f"/opt/source/{HEAD}": str(ROOT / HEAD)}
        command = [places.get(word, word) for word in services()[name]["command"]]
        given = {**self.environment(name), **environment}
        return self._running.start([*command, *more], inside=(*CONTAINER, *SHARED_MEMORY), **given)

    def start_api(self) -> subprocess.Popen[bytes]:
        return self.start("api", "--host", LOOPBACK, "--port", str(self._head))

    def stop(self, container: subprocess.Popen[bytes]) -> None:
        """Stop a container as Docker does, by its first process."""
        os.kill(first(container), signal.SIGTERM)
        self._running.end(container)

    def wait_until_ready(self) -> None:
        """What the health check of `api` waits for."""
        self.wait_for("/readyz")

    def wait_for(self, path: str) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                if self.server.ask("GET", path, tenant=None).status == 200:
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, self._running.tail()
            time.sleep(0.2)


def test_the_services_train_a_job(tmp_path: Path, databases: Databases) -> None:
    url = databases.new("postgres", schema=False)
    with programs() as running:
        composed = Composed(running, tmp_path, url)
        assert "nothing" in running.run(services()["migrate"]["command"], **composed.environment("migrate"))
        api = composed.start_api()
        other = running.folder / "w"
        other.mkdir()
        worker = composed.start("worker", "--host", LOOPBACK, "--cpus", "1", RAY_TMPDIR=str(other))
        composed.wait_until_ready()
        keys = ["influencerai", "keys", "create", "--tenant", "studio"]
        key = running.run(keys, **composed.environment("api")).strip()
        job = submit(composed.server, key)
        deadline = time.monotonic() + 200
        while (found := ask(composed.server, key, "GET", f"/jobs/{job}"))["status"] not in ("completed", "failed"):
            assert time.monotonic() < deadline, f"{found}\n{running.tail()}"
            time.sleep(0.5)
        assert found["status"] == "completed", found
        assert (tmp_path / "tenants/studio" / found["result"]["loraPath"]).is_file()
        composed.stop(worker)
        composed.stop(api)
    databases.give_back(url)


def test_what_ends_in_a_container_ends_it(tmp_path: Path, databases: Databases) -> None:
    """And Docker starts it again, which it does not where one of two programs has ended."""
    url = databases.new("postgres")
    with programs() as running:
        composed = Composed(running, tmp_path, url)
        for name in ("influencerai serve", "gcs_server"):
            api = composed.start_api()
            composed.wait_for("/healthz")
            os.kill(within(api, name), signal.SIGKILL)
            assert api.wait(90) != 0, running.tail()
            running.started.remove(api)
        api = composed.start_api()
        within(api, "gcs_server")
        composed.stop(api)  # before there is a server
        assert api.returncode == 0, running.tail()
    databases.give_back(url)


def first(container: subprocess.Popen[bytes]) -> int:
    """The first process of a container, which `unshare` is not in."""
    [process] = children(container.pid)
    return process


def within(container: subprocess.Popen[bytes], name: str) -> int:
    """A process of a container, by the beginning of its command; waited for."""
    deadline = time.monotonic() + 60
    while True:
        found = [container.pid]
        for pid in found:
            found += children(pid)
            with suppress(FileNotFoundError, ProcessLookupError):
                if name in " ".join(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:3]):
                    return pid
        assert time.monotonic() < deadline, name
        time.sleep(0.1)


def submit(server: Server, key: str) -> str:
    """A job of the tenant that the key is for; its id."""
    write_character("ava", server.root / "tenants/studio/data/datasets/ava")
    made = []
    dataset = {"kind": "lora-training", "path": "data/datasets/ava"}
    for path, body in (("/datasets", dataset), ("/lora-configs", CONFIG)):
        made.append(str(ask(server, key, "POST", path, body)["id"]))
    payload = {"datasetId": made[0], "loraConfigId": made[1]}
    return str(ask(server, key, "POST", "/jobs", {"type": "lora-training", "payload": payload})["id"])


def ask(server: Server, key: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """What the API answers to whom the key is for."""
    answer = server.ask(method, path, body, tenant=None, authorization=f"Bearer {key}")
    assert answer.status in (200, 201), answer.body
    document: dict[str, Any] = answer.document
    return document
