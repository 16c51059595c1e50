"""Attempts in processes of their own: the same bytes as in this one, killed for certain, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from influencerai.domain import StepEvent, TrainingSpec
from influencerai.job_process.messages import (
    Completed,
    Failed,
    Prepared,
    ProcessMessage,
    Progress,
    Stopped,
    TrainingRequest,
)
from influencerai.job_process.supervisor import LOG_BYTES, LOG_FILE, PRELOADED, ForkServer, JobProcess
from influencerai.train.runs.training_state import list_states
from tests.attempts import DATASET, OUTPUT, lora_files, make_request, undisturbed, write_pictures
from tests.small_models import small_sdxl

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LIGHT = {"PIL", "encodings", "influencerai", "numpy"}
"""Packages of which a child may import a rest, in milliseconds."""
LONG: dict[str, Any] = {"config": {"epochs": 500}}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer(preload=(*PRELOADED, "tests.worker.import_watch"))
    server.warm()
    yield server
    server.close()


@pytest.fixture
def bare_server() -> Iterator[ForkServer]:
    """One that has imported nothing, where the child is not waited for."""
    server = ForkServer(preload=(), held_back=())
    yield server
    server.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pictures(tmp_path)
    return tmp_path


Reaction = Callable[[JobProcess, ProcessMessage], Awaitable[None] | None]


def run(order: TrainingRequest, server: ForkServer, *, react: Reaction = lambda *_: None) -> tuple[list[Any], int]:
    """An attempt until its process is gone: every message, and the exit code. Go is said to what was prepared."""

    async def supervise() -> tuple[list[Any], int]:
        child = await JobProcess.start(order, fork_server=server)
        messages: list[ProcessMessage] = []
        async for message in child.messages():
            messages.append(message)
            if isinstance(message, Prepared):
                await child.go(message.spec)
            if (reaction := react(child, message)) is not None:
                await reaction
        code = await asyncio.wait_for(child.wait(), 5)
        child.kill()
        await child.stop()
        return messages, code

    return asyncio.run(asyncio.wait_for(supervise(), 100))


def at_step(number: int, action: Callable[[JobProcess], Awaitable[None] | None]) -> Reaction:
    def react(child: JobProcess, message: ProcessMessage) -> Awaitable[None] | None:
        event = message.event if isinstance(message, Progress) else None
        return action(child) if isinstance(event, StepEvent) and event.step == number else None

    return react


def spec_of(messages: list[Any]) -> TrainingSpec:
    [prepared] = [message for message in messages if isinstance(message, Prepared)]
    spec: TrainingSpec = prepared.spec
    return spec


def steps(messages: list[Any]) -> list[int]:
    events = [message.event for message in messages if isinstance(message, Progress)]
    return [event.step for event in events if isinstance(event, StepEvent)]


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def open_files(pid: int) -> dict[int, str]:
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists the folder
            found[int(entry.name)] = str(entry.readlink())
    return found


def heavy_imports(order: TrainingRequest) -> list[str]:
    lines = (order.run_dir / LOG_FILE).read_text().splitlines()
    names = [line.removeprefix("imports ") for line in lines if line.startswith("imports ")]
    return [name for name in names if name.partition(".")[0] not in LIGHT | sys.stdlib_module_names]


@pytest.mark.campaign
def test_a_child_ends_with_the_bytes_of_this_process(root: Path, cache: Path, server: ForkServer) -> None:
    order = make_request(root, cache_dir=cache)
    messages, code = run(order, server)
    assert isinstance(messages[-1], Completed), messages[-1]
    assert code == 0
    assert lora_files(root / OUTPUT) == undisturbed(spec_of(messages), order, root / "plain")
    assert {name.partition(".")[0] for name in heavy_imports(order)} <= {"torch"}
    assert len(heavy_imports(order)) < 5


@pytest.mark.campaign
def test_a_killed_attempt_is_gone_on_with_to_the_same_bytes(root: Path, cache: Path, server: ForkServer) -> None:
    order = make_request(root, cache_dir=cache, config={"epochs": 8})
    first, code = run(order, server, react=at_step(5, JobProcess.kill))
    assert code == -signal.SIGKILL
    assert not isinstance(first[-1], Completed | Stopped | Failed)
    with (root / DATASET / "ava_01.png").open("r+b") as file:
        file.write(b"edited in place")
    shutil.rmtree(root / DATASET)
    spec = spec_of(first)
    second, code = run(order.model_copy(update={"spec": spec, "cache_dir": root / "cold"}), server)
    assert isinstance(second[-1], Completed), second[-1]
    assert 5 <= steps(second)[0] <= 16, "it goes on from a state"
    assert steps(second)[-1] == 16
    assert lora_files(root / OUTPUT) == undisturbed(spec, order, root / "plain")


@pytest.mark.slow
def test_a_stopped_attempt_saves_its_state_and_is_gone_on_with(root: Path, cache: Path, server: ForkServer) -> None:
    order = make_request(root, cache_dir=cache, config={"epochs": 8})
    first, code = run(order, server, react=at_step(2, JobProcess.stop))
    assert isinstance(first[-1], Stopped)
    assert code == 0
    assert list_states(order.run_dir)
    spec = spec_of(first)
    second, _ = run(order.model_copy(update={"spec": spec}), server)
    assert isinstance(second[-1], Completed)
    assert steps(second) == list(range(steps(first)[-1] + 1, 17))


@pytest.mark.slow
def test_a_waiting_child_can_be_stopped_and_killed(root: Path, server: ForkServer) -> None:
    async def supervise(end: Callable[[JobProcess], Any]) -> tuple[str, int]:
        child = await JobProcess.start(make_request(root), fork_server=server)
        last = ""
        async for message in child.messages():
            last = message.type
            if isinstance(message, Prepared) and (done := end(child)) is not None:
                await done
        return last, await child.wait()

    assert asyncio.run(supervise(JobProcess.stop)) == ("stopped", 0)
    assert asyncio.run(supervise(JobProcess.kill)) == ("prepared", -signal.SIGKILL)


@pytest.mark.slow
def test_megabytes_pass_in_both_directions(root: Path, server: ForkServer) -> None:
    long = ("ä" * 1_000_000, *("x" * 500 for _ in range(6000)))
    order = make_request(root, backend="dry-run", warnings=long)
    first, _ = run(order.model_copy(update={"warnings": ()}), server)
    messages, _ = run(order.model_copy(update={"spec": spec_of(first)}), server)
    assert isinstance(messages[-1], Completed), messages[-1].message[:200]
    assert messages[-1].result.warnings[: len(long)] == long


@pytest.mark.slow
def test_two_children_train_at_once(root: Path, cache: Path, server: ForkServer) -> None:
    async def both() -> list[int]:
        orders = [make_request(root, job=job, cache_dir=cache, backend="dry-run") for job in ("job-1", "job-2")]
        children = await asyncio.gather(*(JobProcess.start(order, fork_server=server) for order in orders))
        for child in children:
            async for message in child.messages():
                if isinstance(message, Prepared):
                    await child.go(message.spec)
        return [await child.wait() for child in children]

    assert asyncio.run(both()) == [0, 0]
    first, second = sorted((root / "data/loras").iterdir())
    assert first.name == "test-run"
    assert second.name in ("test-run-job-1", "test-run-job-2")
    assert lora_files(first).keys() == lora_files(second).keys() == {"test-run-final.safetensors"}


def test_nothing_is_inherited_and_no_thread_is_forked(root: Path, server: ForkServer) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)

    async def look() -> None:
        child = await JobProcess.start(make_request(root), fork_server=server)
        async for message in child.messages():
            if isinstance(message, Prepared):
                assert server.pid is not None
                assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1
                ours = set(open_files(os.getpid()).values())
                for pid in (server.pid, child.pid):
                    files = open_files(pid)
                    assert files[0] == "/dev/null"
                    assert not {name for fd, name in files.items() if fd > 2 and name.startswith("socket:")} & ours
                    assert os.getsid(pid) == pid
                log = str(root / ".influencerai/runs")
                assert open_files(child.pid)[1].startswith(log)
                assert open_files(child.pid)[2].startswith(log)
                child.kill()
        assert await child.wait() == -signal.SIGKILL

    with listener:
        asyncio.run(look())


def test_a_fork_server_that_was_killed_is_started_again(root: Path, bare_server: ForkServer) -> None:
    async def kill_and_start_again() -> None:
        first = await JobProcess.start(make_request(root), fork_server=bare_server)
        before = bare_server.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        second = await JobProcess.start(make_request(root), fork_server=bare_server)
        assert await asyncio.wait_for(first.wait(), 2) == -signal.SIGKILL
        assert [message async for message in first.messages()] == []
        assert bare_server.pid not in (None, before)
        assert is_alive(second.pid)
        bare_server.close()
        assert await asyncio.wait_for(second.wait(), 2) == -signal.SIGKILL
        assert wait_until(lambda: not is_alive(second.pid), seconds=2)
        assert bare_server.pid is None

    asyncio.run(kill_and_start_again())


def test_the_main_module_is_not_run_again(root: Path) -> None:
    order = root / "order.json"
    order.write_bytes(make_request(root).model_dump_json(by_alias=True).encode())
    program = root / "without_a_guard.py"
    program.write_text(
        "import asyncio, pathlib\n"
        "from influencerai.job_process.messages import TrainingRequest\n"
        "from influencerai.job_process.supervisor import ForkServer, JobProcess\n"
        f"with open({str(root / 'runs')!r}, 'a') as file: file.write('run ')\n"
        f"order = TrainingRequest.model_validate_json(pathlib.Path({str(order)!r}).read_bytes())\n"
        "async def main():\n"
        "    child = await JobProcess.start(order, fork_server=ForkServer(preload=(), held_back=()))\n"
        "    assert 'without_a_guard' not in pathlib.Path(f'/proc/{child.pid}/cmdline').read_text()\n"
        "    child.kill()\n"
        "    assert await child.wait() == -9\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (root / "runs").read_text() == "run "


def test_the_workers_side_needs_no_torch() -> None:
    modules = "influencerai.job_process.supervisor, influencerai.job_process.fork_server"
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_a_trainer_that_cannot_be_imported_is_reported(root: Path) -> None:
    server = ForkServer(preload=("tests.worker.no_torch",), held_back=())
    try:
        messages, code = run(make_request(root), server)
    finally:
        server.close()
    [failed] = messages
    assert isinstance(failed, Failed)
    assert failed.retryable
    assert "The trainer cannot be imported here" in failed.message
    assert code == 1


def test_a_long_log_is_begun_anew(root: Path, bare_server: ForkServer) -> None:
    log = make_request(root).run_dir / LOG_FILE
    log.parent.mkdir(parents=True)

    async def start_and_kill() -> None:
        child = await JobProcess.start(make_request(root), fork_server=bare_server)
        child.kill()
        await child.wait()

    for size, kept in ((LOG_BYTES, LOG_BYTES), (LOG_BYTES + 1, 0)):
        log.write_bytes(b"x" * size)
        asyncio.run(start_and_kill())
        assert log.stat().st_size == kept


@pytest.mark.campaign
def test_an_old_attempt_that_wakes_up_does_no_harm(root: Path, cache: Path, server: ForkServer) -> None:
    order = make_request(root, cache_dir=cache, config={"epochs": 8})

    async def overtake() -> TrainingSpec:
        old = await JobProcess.start(order, fork_server=server)
        spec: TrainingSpec | None = None
        async for message in old.messages():
            if isinstance(message, Prepared):
                spec = message.spec
                await old.go(spec)
            if isinstance(message, Progress) and isinstance(message.event, StepEvent) and message.event.step == 3:
                os.kill(old.pid, signal.SIGSTOP)
                break
        assert spec is not None
        new = await JobProcess.start(order.model_copy(update={"spec": spec}), fork_server=server)
        async for message in new.messages():
            if isinstance(message, Prepared):
                await new.go(spec)
            if isinstance(message, Progress) and isinstance(message.event, StepEvent) and message.event.step == 8:
                os.kill(old.pid, signal.SIGCONT)
        assert isinstance(message, Completed), message
        assert await new.wait() == 0
        assert isinstance([message async for message in old.messages()][-1], Completed)
        assert await old.wait() == 0
        return spec

    spec = asyncio.run(overtake())
    assert lora_files(root / OUTPUT) == undisturbed(spec, order, root / "plain")


@pytest.mark.slow
def test_an_sdxl_attempt_imports_nothing_heavy_either(root: Path, server: ForkServer) -> None:
    model = small_sdxl(root / "models/small")
    order = make_request(root, as_path=True, config={"modelName": str(model)})
    messages, _ = run(order, server)
    assert isinstance(messages[-1], Completed), messages[-1]
    assert heavy_imports(order) == ["torch.profiler._cupti_monitor"]


@pytest.fixture
def worker(root: Path, cache: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process that supervises a long training, and the ids of its fork server and its child."""
    order = root / "order.json"
    order.write_bytes(make_request(root, cache_dir=cache, **LONG).model_dump_json(by_alias=True).encode())
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.worker.parent", order],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert worker.stdout is not None
    with worker.stdout:
        server, child = map(int, worker.stdout.readline().split())
        assert is_alive(server)
        assert is_alive(child)
        yield worker, server, child
        for pid in (child, server, worker.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.wait()


@pytest.mark.slow
@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_nothing_outlives_a_killed_worker(paused: bool, worker: tuple[subprocess.Popen[str], int, int]) -> None:
    process, server, child = worker
    if paused:
        os.kill(child, signal.SIGSTOP)
    process.kill()
    assert wait_until(lambda: not is_alive(server) and not is_alive(child), seconds=2)


@pytest.mark.campaign
def test_a_paused_child_does_not_outlive_its_fork_server(worker: tuple[subprocess.Popen[str], int, int]) -> None:
    process, server, child = worker
    for pid in (process.pid, child):
        os.kill(pid, signal.SIGSTOP)  # so that neither can do anything about it
    os.kill(server, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(child), seconds=2)


@pytest.mark.slow
def test_signals_are_the_workers_business(worker: tuple[subprocess.Popen[str], int, int]) -> None:
    process, server, child = worker
    os.killpg(process.pid, signal.SIGINT)
    for pid in (server, child):
        os.kill(pid, signal.SIGTERM)
    assert not wait_until(lambda: not is_alive(child) or not is_alive(server), seconds=1)


@pytest.mark.slow
def test_a_child_ends_by_itself_when_only_the_connection_is_lost(root: Path, cache: Path, server: ForkServer) -> None:
    async def supervise() -> int:
        child = await JobProcess.start(make_request(root, cache_dir=cache, **LONG), fork_server=server)
        async for message in child.messages():
            if isinstance(message, Prepared):
                await child.go(message.spec)
            if isinstance(message, Progress) and message.event.type == "step" and message.event.step == 3:
                child._orders.writer.close()
        return await child.wait()

    assert asyncio.run(supervise()) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_file_system_is_tried_again(root: Path, cache: Path, server: ForkServer) -> None:
    mount = root / ".influencerai/runs"
    mount.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount]).returncode:
        pytest.skip("mounting a small disk is not allowed here, even as root")
    try:
        order = make_request(root, cache_dir=cache)
        messages, code = run(order, server)
        failed = messages[-1]
        assert isinstance(failed, Failed), failed
        assert (failed.retryable, code) == (True, 0)
        assert "No space left on device" in failed.message
        subprocess.run(["mount", "-o", "remount,size=64m", mount], check=True)
        again, _ = run(order.model_copy(update={"spec": spec_of(messages)}), server)
        assert isinstance(again[-1], Completed), again[-1]
    finally:
        subprocess.run(["umount", mount], check=True)
