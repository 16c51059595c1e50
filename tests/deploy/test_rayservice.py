"""The API as a RayService deploys it: the manifest's own configuration, run by Serve on a Ray that wants a token."""

from __future__ import annotations

import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from influencerai.errors import ValidationError
from influencerai.serve.rayservice import app
from tests.databases import Databases
from tests.deploy.clusters import LOOPBACK, Programs, free_port, programs, wait_for_port
from tests.deploy.manifests import ROOT, load
from tests.servers import Server

pytestmark = pytest.mark.xdist_group("ray")


def deployed(port: int) -> dict[str, Any]:
    """What the manifest has Serve deploy, on a port of this machine and with both replicas on its one node."""
    [service] = load("deploy/kubernetes/rayservice.yaml")
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    [application] = config["applications"]
    del application["deployments"][0]["max_replicas_per_node"]
    return config


def wait_until_ready(server: Server, running: Programs) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            if server.ask("GET", "/readyz", tenant=None).status == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, running.tail()
        time.sleep(0.2)


def wait_until_healthy(running: Programs) -> None:
    """Until Ray's node answers the probes of the manifest, as they ask: without a token."""
    [cluster] = load("deploy/kubernetes/raycluster.yaml")
    container = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    asked = container["livenessProbe"]["httpGet"]
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{asked['port']}{asked['path']}", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, running.tail()
        time.sleep(0.2)


def test_development_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INFLUENCERAI_AUTH", "development")
    with pytest.raises(ValidationError, match="believes every request"):
        app({"root": str(tmp_path)})
    with pytest.raises(ValidationError) as caught:
        app({"auth": "production", "reads_per_minute": "many"})
    assert "reads_per_minute" in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_manifests_application_serves_and_nobody_without_the_token_joins(
    tmp_path: Path, databases: Databases
) -> None:
    url = databases.new("postgres")
    settings = {"ROOT": str(tmp_path), "DATABASE_URL": url, "AUTH": "production", "MIN_FREE_MIB": "0"}
    with programs(PYTHONPATH=str(ROOT), **{f"INFLUENCERAI_{name}": value for name, value in settings.items()}) as ray:
        head = free_port()
        node = ["influencerai", "node", "start", "--head", "--host", LOOPBACK, "--port", str(head), "--cpus", "2"]
        ray.start([*node, "--drain-seconds", "1"])
        wait_for_port(LOOPBACK, head)
        wait_until_healthy(ray)
        server = Server(port=free_port("127.0.0.1"), root=tmp_path, log=ray.log)
        config = ray.folder / "serve.yaml"
        config.write_text(yaml.safe_dump(deployed(server.port)))
        serving = ray.start(["serve", "run", str(config)], RAY_ADDRESS=f"{LOOPBACK}:{head}")
        wait_until_ready(server, ray)
        key = ray.run(["influencerai", "keys", "create", "--tenant", "studio"]).strip()
        assert server.ask("GET", "/jobs", tenant=None).status == 401
        assert server.ask("GET", "/jobs", tenant="studio").status == 401
        answers = [server.ask("GET", "/jobs", tenant=None, authorization=f"Bearer {key}") for _ in range(20)]
        assert {answer.status for answer in answers} == {200}
        left = {int(answer.headers["x-ratelimit-remaining"]) for answer in answers}
        assert len(left) == 20  # two replicas answer, and count together
        ask = ["ray", "health-check", "--address", f"{LOOPBACK}:{head}"]
        ray.run(ask)
        with pytest.raises(AssertionError):
            ray.run(ask, RAY_AUTH_TOKEN="0" * 64)
        ray.end(serving, signal.SIGINT)
    databases.give_back(url)
