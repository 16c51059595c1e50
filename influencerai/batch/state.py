"""The state of a batch between two calls of the same command: its jobs on a server, and failures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pydantic
from pydantic import Field

from influencerai.domain import TrainingSpec
from influencerai.domain.wire import WireModel
from influencerai.errors import RefusedError
from influencerai.files import atomic_file, file_system

_VERSION = 2
_FREE = frozenset({"description", "isDefault", "meta"})
"""Of a config: what changes no byte of the weights; `meta` is compared as options."""


class StoredTraining(WireModel):
    """The outcome of a training. With another `identity` it is another training."""

    identity: str
    error: str | None = Field(default=None, description="Why it failed, where it did.")
    job_id: str | None = Field(default=None, description="Of the newest job, where it was submitted to a server.")


class _Memory(WireModel):
    trainings: dict[str, StoredTraining] = Field(default_factory=dict)
    config_ids: tuple[str, ...] = Field(default=(), description="Of the configs that the batch has made on the server.")
    dataset_ids: tuple[str, ...] = Field(default=(), description="Of the datasets that the batch has made there.")


class _Document(WireModel):
    version: int = _VERSION
    file: str = Field(description="Path of the batch file, for people who open the folder.")
    tenants: dict[str, _Memory] = Field(
        default_factory=dict, description="By tenant of the server; '' is this machine."
    )


class BatchState:
    """A file below `<root>/.influencerai/batches`, written at every change.

    Args:
        folder: that one.
        file: the batch's; each has a state of its own, on each server, and in it a memory for each tenant.
        server: address of the server, or None for this machine.

    Raises:
        ValidationError: the address is none.
    """

    def __init__(self, folder: Path, file: Path, *, server: str | None = None) -> None:
        if server is not None:
            from influencerai.client.client import checked_url  # with httpx2, which a batch here does not need

            server = checked_url(server)
        key = json.dumps([str(file.resolve()), server])
        self._path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        self._document = self._read() or _Document(file=str(file))
        self._tenant = "" if server is None else None

    def enter(self, tenant: str) -> None:
        """Whose memory it is from now on, as the server's records name the tenant: a key may be replaced by another.

        Until then nothing is remembered, since where the server has no record of a tenant there is nothing to remember.
        """
        self._tenant = tenant

    def get(self, name: str, identity: str) -> StoredTraining:
        """What is known of the training; a new entry where it was another one, or none."""
        found = self._memory.trainings.get(name)
        return found if found and found.identity == identity else StoredTraining(identity=identity)

    def earlier_job(self, name: str, identity: str) -> str | None:
        """The job that was submitted for another training of this name."""
        found = self._memory.trainings.get(name)
        return found.job_id if found and found.identity != identity else None

    def put(self, name: str, entry: StoredTraining) -> None:
        self._change(trainings={**self._memory.trainings, name: entry})

    def forget(self, name: str) -> None:
        """Remove the training's entry."""
        if name in self._memory.trainings:
            others = {key: entry for key, entry in self._memory.trainings.items() if key != name}
            self._change(trainings=others)

    @property
    def config_ids(self) -> frozenset[str]:
        """The server's configs that are this batch's to change."""
        return frozenset(self._memory.config_ids)

    def own_config(self, id: str) -> None:
        if id not in self.config_ids:
            self._change(config_ids=(*self._memory.config_ids, id))

    @property
    def dataset_ids(self) -> frozenset[str]:
        """The server's datasets that this batch may upload into."""
        return frozenset(self._memory.dataset_ids)

    def own_dataset(self, id: str) -> None:
        if id not in self.dataset_ids:
            self._change(dataset_ids=(*self._memory.dataset_ids, id))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the batch for this process; the lock goes with the process, however it ends.

        Raises:
            RefusedError: another process runs the batch.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        path = self._path.with_suffix(".lock")
        with path.open("ab") as file, ExitStack() as held:
            try:
                held.enter_context(file_system.file_lock(file.fileno(), path))
            except BlockingIOError as error:
                raise RefusedError(
                    f"Another process is running the batch {self._document.file}: {error.strerror}.",
                    remedy="Wait until it has ended, or end it.",
                ) from error
            self._document = self._read() or self._document
            yield

    @property
    def _memory(self) -> _Memory:
        return self._document.tenants.get(self._tenant or "") or _Memory()

    def _change(self, **changes: object) -> None:
        assert self._tenant is not None
        tenants = {**self._document.tenants, self._tenant: self._memory.model_copy(update=changes)}
        self._document = self._document.model_copy(update={"tenants": tenants})
        data = json.dumps(self._document.to_wire(), indent=1, ensure_ascii=False).encode() + b"\n"
        atomic_file.write_atomic(self._path, data)

    def _read(self) -> _Document | None:
        """The document; None where it cannot be read, since everything in it can be found again."""
        try:
            found = _Document.model_validate_json(self._path.read_bytes())
        except (OSError, pydantic.ValidationError):
            return None
        return found if found.version == _VERSION else None


def spec_identity(spec: TrainingSpec) -> str:
    """SHA-256 of what is trained on what: everything of a spec but its time and the device that executes it."""
    wire = spec.to_wire()
    config = {name: value for name, value in wire["config"].items() if name not in _FREE}
    return digest([config, wire["options"], wire["model"], wire["samples"], wire["outputName"]])


def digest(document: object) -> str:
    """SHA-256 of a document's JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
