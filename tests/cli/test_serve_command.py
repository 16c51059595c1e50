"""`influencerai serve`, as a process: on Ray Serve and alone, to the end of a job, and to its own end."""

from __future__ import annotations

import http.client
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from influencerai.demo.characters import write_character
from tests.cli.conftest import Invoke
from tests.cli.exposure import addresses, holders, is_loopback, shared_files
from tests.databases import Databases
from tests.servers import Server, serve

CONFIG = {
    "name": "Portrait",
    "modelName": "influencerai/tiny-avatars",
    "epochs": 2,
    "batchSize": 10,
    "resolution": 128,
    "networkDim": 4,
    "networkAlpha": 2,
}


SECRET = "a-secret-of-the-server-of-40-characters!"


def pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def processes_of(marker: str) -> list[str]:
    """Command lines of running processes whose environment holds `marker`."""
    return [command for command in holders(marker, pids()) if command]


def check_exposure(server: Server, marker: str) -> None:
    """Other users of the machine and of the network find nothing of a server that has trained."""
    own = [pid for pid in pids() if list(holders(marker, [pid]))]
    assert len(own) > 2
    assert {address for address in addresses(own) if not is_loopback(address)} == set()
    (only,) = holders(SECRET, own)
    assert "influencerai serve" in only
    assert shared_files(server.root / ".influencerai") == []
    assert shared_files(server.root / "data" / "loras") == []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/healthz", headers={"x-request-id": "mine"})
    answer = connection.getresponse()
    assert answer.headers.get_all("x-request-id") == ["mine"]
    answer.read()
    connection.request("GET", "/healthz", headers={f"x-{number}": "a" for number in range(200)})
    assert connection.getresponse().status == 431


def submit(server: Server) -> str:
    """A job on the sample character; its id."""
    write_character("ava", server.root / "data" / "datasets" / "ava")
    dataset = server.ask("POST", "/datasets", {"kind": "lora-training", "path": "data/datasets/ava"}).document
    config = server.ask("POST", "/lora-configs", CONFIG).document
    payload = {"datasetId": dataset["id"], "loraConfigId": config["id"]}
    return str(server.ask("POST", "/jobs", {"type": "lora-training", "payload": payload}).document["id"])


def follow(server: Server, job: str) -> socket.socket:
    """An open event stream of a job."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    lines = [f"GET /jobs/{job}/events HTTP/1.1", "host: x", "x-tenant-id: tenant_demo", "accept: text/event-stream"]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    seen = b""
    while b"id: 1\n" not in seen:
        seen += connection.recv(65536)
    return connection


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("ray", [True, pytest.param(False, marks=pytest.mark.campaign)], ids=["on ray", "alone"])
def test_a_submitted_job_is_trained_and_nothing_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: bool
) -> None:
    with monkeypatch.context() as marked:
        marked.setenv("TEST_MARK", mark := f"{tmp_path.name}-{ray}")
        with serve(tmp_path, runner="inline", ray=ray, log_format="json", jwt_secret=SECRET) as server:
            found = server.wait_for_job(submit(server), seconds=240)
            assert found["status"] == "completed", found
            assert (tmp_path / found["result"]["loraPath"]).is_file()
            stream = follow(server, submit_again(server))
            check_exposure(server, f"TEST_MARK={mark}")
    stream.settimeout(10)
    while stream.recv(65536):
        pass  # a stream that the server had not ended would time out here
    stream.close()
    deadline = time.monotonic() + 30
    while (left := processes_of(f"TEST_MARK={mark}")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def submit_again(server: Server) -> str:
    """Another job like the first one, on what is there."""
    jobs = server.ask("GET", "/jobs").document["data"]
    body = {"type": "lora-training", "payload": jobs[0]["payload"]}
    return str(server.ask("POST", "/jobs", body).document["id"])


def test_development_mode_stays_on_this_machine(invoke: Invoke) -> None:
    result = invoke("serve", "--host", "0.0.0.0", "--port", "0")
    assert result.exit_code == 2
    assert "--auth production" in result.output


def test_a_port_that_is_taken_is_named(invoke: Invoke) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = invoke("serve", "--no-ray", "--port", port)
    assert result.exit_code == 2
    assert f"127.0.0.1:{port}" in result.output
    assert "--port" in result.output


def test_an_empty_postgres_is_said_with_the_command_that_helps(
    tmp_path: Path, databases: Databases, invoke: Invoke
) -> None:
    url = databases.new("postgres", schema=False)
    result = invoke("serve", "--no-ray", "--port", 0, "--root", tmp_path, "--database-url", url)
    assert result.exit_code == 1
    assert "influencerai db upgrade" in result.output


@pytest.mark.slow
def test_ready_is_one_json_line_where_it_was_asked_for(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("influencerai"))
    command = [program, "serve", "--no-ray", "--runner", "none", "--port", "0", "--root", str(tmp_path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
    finally:
        process.terminate()
        process.wait(30)
    assert line.startswith('{"type": "ready", "url": "http://127.0.0.1:')


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("serve", "--port", "0", "--runner", "none"), "set HOME and TMPDIR to folders that you may write to"),
        (("node", "start", "--head"), "or set RAY_AUTH_TOKEN"),
    ],
    ids=["serve", "node"],
)
def test_a_home_that_cannot_be_written_is_an_error_with_a_remedy(
    command: tuple[str, ...], remedy: str, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by root: nothing can be made below a file."""
    (tmp_path / "file").touch()
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("INFLUENCERAI_ROOT", str(tmp_path))
    done = invoke(*command)
    said = " ".join(done.stderr.split())
    assert done.exit_code in (1, 2), said
    assert (remedy in said, str(tmp_path / "file/.ray") in said) == (True, True), said
    assert "bug in InfluencerAI" not in said


HEAD = """
import sys, ray
context = ray.init(address="local", include_dashboard=False, num_cpus=2, _node_ip_address="127.0.0.1")
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


KILL_FIRST_PROXY = """
import time
while not (found := [actor for actor in ray.util.list_named_actors(True) if "PROXY" in actor["name"]]):
    time.sleep(0.01)
ray.kill(ray.get_actor(**found[0]))
print("killed", flush=True)
sys.stdin.read()
"""


@pytest.mark.xdist_group("ray")
@pytest.mark.campaign
def test_a_ray_that_was_there_is_joined_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    command = [sys.executable, "-c", HEAD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as head:
        assert head.stdin is not None
        assert head.stdout is not None
        monkeypatch.setenv("RAY_ADDRESS", address := head.stdout.readline().strip())
        with serve(tmp_path, ray=True) as server:
            assert server.ask("GET", "/jobs").status == 200
        with serve(tmp_path, ray=True) as server:  # it finds no trace of the first
            another = serve(tmp_path / "another", ray=True)
            with pytest.raises(AssertionError, match="Another InfluencerAI server uses this Ray cluster"), another:
                pass
            assert server.ask("GET", "/jobs").status == 200
        look = "import ray; ray.init(log_to_driver=False); print(len(ray.nodes()))"
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
        assert done.stdout.strip().endswith("1"), (address, done.stderr)
        head.stdin.close()


@pytest.mark.campaign
@pytest.mark.xdist_group("ray")
def test_sigterm_ends_a_server_on_ray_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Ray is its own, though another one says that it was started on this machine."""
    with TemporaryDirectory() as folder:  # Ray's sockets have to have short names
        monkeypatch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        Path(folder, "ray/ray_current_cluster").write_text("127.0.0.1:1")
        check_sigterm(tmp_path)


@pytest.mark.campaign
@pytest.mark.xdist_group("ray")
def test_a_server_starts_though_its_first_proxy_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve replaces it, as it does on a busy machine with one that starts too slowly."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    command = [sys.executable, "-c", HEAD.replace("sys.stdin.read()", KILL_FIRST_PROXY)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as head:
        assert head.stdin is not None
        assert head.stdout is not None
        monkeypatch.setenv("RAY_ADDRESS", head.stdout.readline().strip())
        with serve(tmp_path, ray=True) as server:
            assert head.stdout.readline() == "killed\n"
            assert server.ask("GET", "/jobs").status == 200
        head.stdin.close()


def check_sigterm(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("influencerai"))
    command = [program, "serve", "--runner", "none", "--port", "0", "--root", str(tmp_path), "--json"]
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    assert '"ready"' in process.stdout.readline()
    process.terminate()
    code = process.wait(60)
    assert code == 0, log.read_text()
    assert "SIGTERM" not in log.read_text()
