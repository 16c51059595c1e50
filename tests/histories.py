"""Histories: what must be true of a job's record and files, whatever happened to those who trained it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from influencerai.domain.job import TERMINAL, TRANSITIONS, Job
from influencerai.files.atomic_file import sha256_file
from influencerai.scheduling.placement import Allocation, Capacity, Node
from influencerai.store import Store
from influencerai.store.events import StoredEvent
from influencerai.store.job_rows import StoredArtifact

NEWS = frozenset({"stage", "progress", "validation", "checkpoint", "sample", "warning"})
"""Events that only an attempt sends."""
ENDINGS = {"completed": {"completed"}, "failed": {"failed", "cancelled", "lost", "broken", "released"}}
"""Outcomes of an attempt by the status that its job has afterwards; every other one leaves it pending."""
RESULTS = frozenset({"completed", "failed", "cancelled"})
"""Outcomes by which an attempt has ended its job itself."""
_NEVER = 2**62
_TEMPORARY = ".*.tmp"
_PATH = re.compile(r"(?<![\w:/.])/[\w.+-]+(?:/[\w.+-]+)+")


@dataclass(frozen=True, kw_only=True)
class History:
    """All that the store knows of one job."""

    job: Job
    last_seq: int
    events: tuple[StoredEvent, ...]
    attempts: tuple[dict[str, Any], ...]
    artifacts: tuple[StoredArtifact, ...]

    def statuses(self) -> list[StoredEvent]:
        """The events that tell of a status."""
        return [event for event in self.events if event.type == "status"]


async def read_history(store: Store, tenant: str, id: str) -> History:
    """The job's record at one moment."""
    async with store.read() as transaction:
        job = await transaction.jobs.get(tenant, id)
        assert job is not None, f"there is no job {id}"
        return History(
            job=job,
            last_seq=(await transaction.events.last_numbers([id]))[id][0],
            events=tuple(await transaction.events.after(id, -1, limit=10**6)),
            attempts=tuple(await transaction.jobs.attempts(tenant, id)),
            artifacts=tuple(await transaction.jobs.artifacts(tenant, id)),
        )


def faults(history: History, *, root: Path) -> list[str]:
    """Every rule that the record breaks, or the files below the tenant's root, as sentences."""
    return [
        *_of_events(history),
        *_of_attempts(history),
        *_of_times(history),
        *_of_files(history, root),
        *_of_result(history),
        *_of_words(history),
    ]


def overcommitted(attempts: Iterable[Mapping[str, Any]], nodes: Iterable[Node]) -> list[str]:
    """Every moment at which attempts, of whatever jobs, together held more of a node than it has, as sentences.

    What a claim has placed is held from then on; the GPUs are those that the node has really given when it began.
    """
    held = [(row, Allocation.from_json(row["held"])) for row in attempts if row["held"] is not None]
    moments = sorted({moment for row, _ in held for moment in (row["started_at"], _began(row)) if moment < _NEVER})
    machines = {node.id: node for node in nodes}
    found = [
        f"the node {holding.node} of attempt {row['fence']} at {row['job_id']} was never seen"
        for row, holding in held
        if holding.node not in machines
    ]
    for moment in moments:
        now = [
            holding if _began(row) <= moment else replace(holding, devices={})
            for row, holding in held
            if row["started_at"] <= moment < _end(row)
        ]
        for node in machines.values():
            here = [holding for holding in now if holding.node == node.id]
            if Capacity([node], here).is_overcommitted:
                found.append(f"at {moment} {len(here)} attempts hold more of {node.name} than it has: {here}")
    return found


def temporary_files(*folders: Path) -> list[Path]:
    """What interrupted writes have left in the folders and below."""
    return sorted(path for folder in folders for path in folder.rglob(_TEMPORARY))


def _of_events(history: History) -> list[str]:
    found = []
    numbers = [event.seq for event in history.events]
    if numbers != list(range(1, len(numbers) + 1)) or history.last_seq != len(numbers):
        found.append(f"events are numbered {numbers[:5]}... to {history.last_seq}")
    statuses = [str(event.data["status"]) for event in history.statuses()]
    if statuses[:1] != ["pending"]:
        found.append(f"the first status is {statuses[:1]}")
    found += [
        f"{before} cannot become {after}"
        for before, after in pairwise(statuses)
        if after == before or after not in TRANSITIONS[before]  # type: ignore[index]
    ]
    if statuses and statuses[-1] != history.job.status:
        found.append(f"the job is {history.job.status}, its last event says {statuses[-1]}")
    ends = [event.seq for event in history.statuses() if event.data["status"] in TERMINAL]
    if ends and ends != numbers[-1:]:
        found.append(f"events follow the end: {ends} of {numbers[-1:]}")
    if bool(ends) != (history.job.status in TERMINAL):
        found.append(f"{len(ends)} endings of a job that is {history.job.status}")
    status = ""
    step = 0
    for event in history.events:
        if event.type == "status":
            step = 0
            status = str(event.data["status"])
        elif event.type in NEWS and status != "running":
            found.append(f"event {event.seq} ({event.type}) of a job that is {status}")
        if event.type == "progress" and "step" in event.data:
            if event.data["step"] < step:
                found.append(f"event {event.seq} goes back from step {step} to {event.data['step']} of one attempt")
            step = event.data["step"]
    return found


def _of_attempts(history: History) -> list[str]:
    """What events say of attempts, against their rows."""
    found = []
    begun: dict[int, StoredEvent] = {}
    ended: dict[int, StoredEvent] = {}
    current: int | None = None
    for event in history.statuses():
        if event.data["status"] == "running":
            current = int(event.data["attempt"])
            if current in begun:
                found.append(f"attempt {current} begins twice")
            begun[current] = event
        elif current is not None:
            ended[current] = event
            current = None
        elif event.data.get("outcome", "cancelled") != "cancelled":
            found.append(f"event {event.seq} is a result ({event.data['outcome']}) of no attempt, or a second one")
    fences = [row["fence"] for row in history.attempts]
    if fences != sorted(begun) or list(begun) != sorted(begun):
        found.append(f"attempts {fences} have begun in the order {list(begun)}")
    for row in history.attempts:
        fence, start, end = row["fence"], begun.get(row["fence"]), ended.get(row["fence"])
        said = None if end is None else end.data.get("outcome")
        if row["outcome"] != said:
            found.append(f"attempt {fence} ended {row['outcome']}, the events say {said}")
        if (row["ended_at"] is None) != (end is None):
            found.append(f"attempt {fence} has the end {row['ended_at']}, the events say {end}")
        if start is not None and row["node"] != start.data["node"]:
            found.append(f"attempt {fence} is on {row['node']}, the events say {start.data['node']}")
        if end is not None and row["outcome"] not in ENDINGS.get(end.data["status"], {"lost", "broken", "released"}):
            found.append(f"attempt {fence} ended {row['outcome']}, which leaves no job {end.data['status']}")
        if end is not None and row["error"] != end.data.get("error"):
            found.append(f"attempt {fence} says '{row['error']}', the events '{end.data.get('error')}'")
        if end is None and history.job.status != "running":
            found.append(f"attempt {fence} has not ended, the job is {history.job.status}")
        if row["held"] is not None and row["outcome"] in RESULTS and row["begun_at"] is None:
            found.append(f"attempt {fence} ended {row['outcome']} and has never begun")
        if row["begun_at"] is not None and not row["started_at"] <= row["begun_at"] <= _end(row):
            found.append(f"attempt {fence} began at {row['begun_at']}, outside of its life")
    return found


def _of_times(history: History) -> list[str]:
    job, rows = history.job, history.attempts
    found = []
    times = [event.created_at for event in history.events]
    if times != sorted(times):
        found.append("a later event is of an earlier time")
    if (job.started_at is None) != (not rows):
        found.append(f"it started at {job.started_at} with {len(rows)} attempts")
    if job.started_at and rows and abs(_milliseconds(job.started_at) - rows[0]["started_at"]) > 1000:
        found.append("startedAt is not that of the first attempt")
    if (job.finished_at is None) != (job.status not in TERMINAL):
        found.append(f"it is {job.status} and finished at {job.finished_at}")
    moments = [_milliseconds(job.created_at)]
    for row in rows:
        moments += [row["started_at"], *([] if row["ended_at"] is None else [row["ended_at"]])]
    moments += [] if job.finished_at is None else [_milliseconds(job.finished_at) + 1000]
    if moments != sorted(moments):
        found.append(f"attempts overlap, or lie outside of the job's life: {moments}")
    return found


def _of_files(history: History, root: Path) -> list[str]:
    found = []
    for file in history.artifacts:
        path = root / file.path
        if not path.is_file():
            found.append(f"the file {file.path} is not there")
        elif path.stat().st_size != file.size or sha256_file(path) != file.sha256:
            found.append(f"the file {file.path} is not the one that was published")
    announced = {event.data["path"]: event.data["sha256"] for event in history.events if event.type == "checkpoint"}
    published = {file.path: file.sha256 for file in history.artifacts if file.kind == "lora"}
    if not published.items() <= announced.items():
        found.append(f"published {sorted(published)}, announced {sorted(announced)}")
    return found


def _of_result(history: History) -> list[str]:
    job, result = history.job, history.job.result or {}
    names = {file.name for file in history.artifacts}
    if job.status == "completed":
        paths = {file.path for file in history.artifacts}
        checkpoints = result.get("checkpoints", [])
        if not checkpoints or not {*checkpoints} <= names or result.get("loraPath") not in paths:
            return [f"the result names {result.get('loraPath')} and {checkpoints}, published are {sorted(names)}"]
    if job.status == "failed":
        if not result.get("error") or not isinstance(result.get("epoch", 0), int):
            return [f"the result of a failure is {result}"]
        if not {*result.get("partialCheckpoints", [])} <= names:
            return [f"the result names {result['partialCheckpoints']}, published are {sorted(names)}"]
    return []


def _of_words(history: History) -> list[str]:
    """Nobody outside may read where on the server something lies."""
    job = history.job
    texts = {
        "result": json.dumps(job.result),
        "waiting": job.waiting or "",
        "events": json.dumps([dict(event.data) for event in history.events]),
        "attempts": json.dumps([row["error"] for row in history.attempts]),
    }
    return [
        f"the {where} show the path {path}"
        for where, text in texts.items()
        for path in sorted(set(_PATH.findall(text)))
        if Path("/", Path(path).parts[1]).exists()
    ]


def _began(attempt: Mapping[str, Any]) -> int:
    return _NEVER if attempt["begun_at"] is None else int(attempt["begun_at"])


def _end(attempt: Mapping[str, Any]) -> int:
    return _NEVER if attempt["ended_at"] is None else int(attempt["ended_at"])


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
