"""A workplace for tests: a root with pictures, a database, and real workers to strike while they train."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from influencerai.demo.characters import MODEL_ID, write_character
from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.domain.dataset import DatasetDraft
from influencerai.domain.job import Job, JobDraft
from influencerai.domain.output_path import RUN_MARKER
from influencerai.service import Service
from influencerai.settings import Settings
from influencerai.train.backend import RunContext, load_backend
from influencerai.train.runs.history import read_history as read_steps
from tests.attempts import lora_files
from tests.histories import History, faults, read_history, temporary_files
from tests.training_runs import make_config

TENANT = "ann"
PATIENCE = 150.0
"""Seconds that a test waits for what takes two on a quiet machine."""
PICTURES = "data/datasets/ava"
DATE = "1700000000"
"""What SOURCE_DATE_EPOCH says, so that two runs are equal to the byte."""
MARK = "TESTED_WORKPLACE"
"""Environment variable by which processes are recognised, whoever their parent is now."""
_QUICK: dict[str, Any] = {"lease_seconds": 3, "poll_seconds": 0.05, "cancel_grace_seconds": 8, "stall_seconds": 100}
_SMALL: dict[str, Any] = {
    "lost_attempts": 2,
    "broken_attempts": 2,
    "retry_seconds": 0.5,
    "min_free_mib": 0,
    "dataset_wait_seconds": 30,
}
on_sqlite = pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
"""A test of `place` on SQLite."""
on_both = pytest.mark.parametrize(
    "shared", ["sqlite", pytest.param("postgres", marks=pytest.mark.campaign)], indirect=True
)
"""A test of `place` on both kinds of databases: the store's own tests hold what differs between them."""
in_one_process = pytest.mark.xdist_group("worker")
"""Tests of `place` share its workers, which take seconds to start."""
_references: dict[str, dict[str, bytes]] = {}
T = TypeVar("T")
Place = TypeVar("Place", bound="Workplace")


class Workplace:
    """One root, one database; jobs go in and workers are started and struck, all from the test's thread."""

    def __init__(self, folder: Path, url: str, portal: BlockingPortal, **settings: Any) -> None:
        fixed = {"root": folder, "database_url": url, "allow_downloads": False, "threads": 1, "device": "cpu"}
        self.settings = Settings(**{**fixed, **_QUICK, **_SMALL, **settings})
        self.root = folder
        self.mark = secrets.token_hex(8)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.log = folder / "workers.log"
        self._portal = portal
        self._service = Service(self.settings)
        self._configs: dict[str, str] = {}
        self._forgotten = 0
        self._datasets: dict[str, str] = {}

    # Jobs

    def submit(
        self, *, tenant: str = TENANT, dataset: str = PICTURES, count: int = 2, priority: int = 5, **config: Any
    ) -> str:
        """The id of a new job: twelve epochs of `count` pictures; `config` replaces fields of the configuration."""
        if count and not (self.root / dataset).exists():
            write_pictures(self.root / dataset, count=count)
        document = {"epochs": 12, "batchSize": 1, **config}
        payload = {
            "datasetId": self._dataset(tenant, dataset),
            "loraConfigId": self._config(tenant, document),
            "priority": priority,
        }
        draft = JobDraft.parse({"type": "lora-training", "payload": payload})
        return self.ask(lambda service: service.jobs.create(tenant, draft, payload)).value.id

    def job(self, id: str, *, tenant: str = TENANT) -> Job:
        return self.ask(lambda service: service.jobs.get(tenant, id))

    def history(self, id: str, *, tenant: str = TENANT) -> History:
        return self.ask(lambda service: read_history(service.store, tenant, id))

    def outcomes(self, id: str) -> list[str | None]:
        """How the attempts at a job have ended, in order."""
        return [row["outcome"] for row in self.history(id).attempts]

    def cancel(self, id: str) -> Job:
        return self.ask(lambda service: service.jobs.cancel(TENANT, id))

    def retry(self, id: str) -> str:
        """The id of the job that goes on where another has failed."""
        return self.ask(lambda service: service.job_runs.retry(TENANT, id)).value.id

    def forget(self) -> None:
        """The next job gets a new dataset and configuration."""
        self._configs.clear()
        self._forgotten += 1
        self._datasets.clear()

    def ask(self, question: Callable[[Service], Awaitable[T]]) -> T:
        """What the service answers, from its own event loop."""
        return self._portal.call(partial(question, self._service))

    def run_dir(self, id: str) -> Path:
        return self._service.folders.run_dir(TENANT, id)

    def steps(self, id: str) -> int:
        """The last step that was trained, recorded or not."""
        records = read_steps(self.run_dir(id) / "history.jsonl")
        return int(records[-1]["step"]) if records else 0

    # Waiting

    def wait(self, id: str, *statuses: str, tenant: str = TENANT, seconds: float = PATIENCE) -> Job:
        """The job once it has one of the statuses, by default once it has ended."""
        wanted = statuses or ("completed", "failed")
        self.until(lambda: self.job(id, tenant=tenant).status in wanted, id=id, tenant=tenant, seconds=seconds)
        return self.job(id, tenant=tenant)

    def wait_for_step(self, id: str, step: int) -> None:
        self.until(lambda: self.steps(id) >= step, id=id)

    def wait_for_attempt(self, id: str, number: int) -> None:
        """Return when the job's attempt of this number, from 1, has begun."""
        self.until(lambda: len(self.history(id).attempts) >= number, id=id)

    def wait_for_outcome(self, id: str, number: int) -> None:
        """Return when the job's attempt of this number, from 1, has ended."""
        self.until(lambda: self.outcomes(id)[number - 1], id=id)

    def until(
        self,
        condition: Callable[[], object],
        *,
        id: str | None = None,
        tenant: str = TENANT,
        seconds: float = PATIENCE,
        pause: float = 0.02,
    ) -> None:
        """Return when the condition holds.

        Raises:
            AssertionError: it does not in time; shows the job and what the workers said.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                shown = self.history(id, tenant=tenant) if id else ""
                raise AssertionError(f"it takes too long: {shown}\n{self.log.read_text()[-8000:]}")
            time.sleep(pause)

    # Workers

    def staff(self, count: int) -> None:
        """See to it that `count` workers live, new ones where some are gone."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < count:
            self.workers.append(self.hire())

    def hire(self) -> subprocess.Popen[bytes]:
        """A worker as a runner starts it."""
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "influencerai.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment(),
            )
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(self.settings.to_document()).encode() + b"\n")
        worker.stdin.flush()
        return worker

    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("INFLUENCERAI_")}
        fixed = {"SOURCE_DATE_EPOCH": DATE, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return {**own, **fixed, MARK: self.mark}

    def holder(self, id: str) -> int:
        """The process id of the worker that trains the job."""
        return int(self.history(id).attempts[-1]["node"].rpartition(":")[2])

    def child(self, id: str) -> int:
        """The process id of the job's training."""
        found: list[int] = []

        def look() -> bool:
            for server in children(self.holder(id)):
                found.extend(children(server))
            return bool(found)

        self.until(look, id=id)
        return found[0]

    def dismiss(self) -> None:
        """Kill every worker and wait until nothing of this place is left."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
            if worker.stdin is not None:
                with suppress(OSError):
                    worker.stdin.close()
        for pid in marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # Checks

    def check(self, id: str, *, tenant: str = TENANT) -> History:
        """Assert that nothing in the job's record or folders is wrong, and that no process is left over."""
        history = self.history(id, tenant=tenant)
        found = faults(history, root=self.root)
        assert not found, f"{found}\n{history}"
        output = {self.root / Path(file.path).parent for file in history.artifacts}
        assert temporary_files(self.run_dir(id), *output, self.root / ".influencerai/blobs") == []
        if history.job.status == "completed":
            [folder] = {self.root / Path(file.path).parent for file in history.artifacts if file.kind == "lora"}
            left = {path for path in folder.rglob("*") if path.is_file() and path.name != RUN_MARKER}
            assert left == {self.root / file.path for file in history.artifacts}
            self.until(lambda: not list(self.run_dir(id).glob("state-*")), seconds=30)
            self.until(lambda: not (self.run_dir(id) / "dataset").exists(), seconds=30)
        return history

    def check_undisturbed(self, id: str, *, whole: bool = True) -> History:
        """`check`, and that the job has ended with the very files of a run that nothing has disturbed.

        Those of a retry, which is not `whole`, are the last ones of that run.
        """
        history = self.check(id)
        assert history.job.status == "completed", history.job.result
        found, expected = self.files(id), self.undisturbed(id)
        wanted = expected if whole else {name: expected[name] for name in found}
        assert any(name.endswith("-final.safetensors") for name in found)
        assert found.keys() == wanted.keys()
        assert [name for name in found if found[name] != wanted[name]] == []
        return history

    def files(self, id: str) -> dict[str, bytes]:
        """The LoRA files of a completed job."""
        result = self.job(id).result
        assert result is not None
        return lora_files((self.root / result["loraPath"]).parent)

    def undisturbed(self, id: str) -> dict[str, bytes]:
        """The files of the job's spec, trained in this process alone."""
        stored = self.ask(lambda service: _stored(service, id))
        spec = TrainingSpec.model_validate(stored.plan["spec"])
        if spec.id not in _references:
            _references[spec.id] = self._train_here(spec)
        return _references[spec.id]

    def check_idle(self) -> None:
        """Assert that of this place there run its workers and their fork servers, and nothing else."""
        alive = {worker.pid for worker in self.workers if worker.poll() is None}

        def is_idle() -> bool:
            servers = {pid for worker in alive for pid in children(worker)}  # a worker that is new starts its own
            return set(marked(self.mark)) <= alive | servers

        self.until(is_idle, seconds=20)

    def _train_here(self, spec: TrainingSpec) -> dict[str, bytes]:
        """The files of the spec, trained in this process."""
        place = self.root / "undisturbed" / spec.id
        dataset = write_pictures(place / "dataset", count=len(spec.samples))
        context = RunContext(
            dataset_dir=dataset,
            run_dir=place / "run",
            output_dir=place / "output",
            root=place,
            models_dirs=self.settings.models_dirs,
            cache_dir=place / "cache",
            cache_max_bytes=None,
            max_image_pixels=10**8,
            emit=lambda _: None,
            should_stop=lambda: False,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOURCE_DATE_EPOCH", DATE)
            load_backend("diffusers").train(spec, context)
        return lora_files(place / "output")

    def _dataset(self, tenant: str, path: str) -> str:
        key = f"{tenant}/{path}"
        if key not in self._datasets:
            draft = DatasetDraft(kind="lora-training", path=path)
            self._datasets[key] = self.ask(lambda service: service.datasets.create(tenant, draft)).value.id
        return self._datasets[key]

    def _config(self, tenant: str, document: dict[str, Any]) -> str:
        key = tenant + json.dumps(document, sort_keys=True)
        if key not in self._configs:
            # The same in every place, so that equal jobs have equal specs and share their undisturbed run.
            name = f"Test Run {self._forgotten} {hashlib.sha256(key.encode()).hexdigest()[:8]}"
            model = document.pop("modelName", MODEL_ID)
            config: LoraConfig = make_config(model, **{"name": name, **document})
            self._configs[key] = self.ask(lambda service: service.lora_configs.create(tenant, config)).value.id
        return self._configs[key]


@contextmanager
def opened(kind: type[Place], folder: Path, url: str, **settings: Any) -> Iterator[Place]:
    """A workplace of some kind until the end of the block; then none of its processes is left."""
    folder.mkdir(parents=True, exist_ok=True)
    with start_blocking_portal() as portal:
        place = kind(folder, url, portal, **settings)
        place.ask(lambda service: service.open())
        try:
            yield place
        finally:
            place.dismiss()
            place.ask(lambda service: service.close())


def workplace(folder: Path, url: str, **settings: Any) -> AbstractContextManager[Workplace]:
    """A workplace with workers of this machine."""
    return opened(Workplace, folder, url, **settings)


def write_pictures(folder: Path, *, count: int) -> Path:
    """The first `count` pictures of a sample character, with captions; what is there stays."""
    everything = folder.with_name(f".{folder.name}")
    folder.mkdir(parents=True, exist_ok=True)
    for picture in write_character("ava", everything)[:count]:
        for path in (picture, picture.with_suffix(".txt")):
            path.replace(folder / path.name)
    shutil.rmtree(everything)
    return folder


def children(pid: int) -> list[int]:
    """Process ids of the living children of a process."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if is_alive(child)]


def is_alive(pid: int) -> bool:
    """Whether a process is there, and more than a name that waits to be read."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def marked(mark: str) -> list[int]:
    """Processes that were started by a workplace, or by those, whoever is their parent now."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes() and is_alive(int(folder.name)):
                    found.append(int(folder.name))
    return found


def strike(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; nothing happens where the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


async def _stored(service: Service, id: str) -> Any:
    async with service.store.read() as transaction:
        return await transaction.jobs.stored(TENANT, id)
