"""Jobs on the terminal: as a table, one in full, and what happens to them as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from influencerai.domain.job import Job, JobDetail
from influencerai.domain.job_log import JobArtifact, JobEvent
from influencerai.progress.text import duration, visible

_STYLES = {"pending": "yellow", "running": "cyan", "completed": "green", "failed": "red", "cancelled": "dim"}


def job_table(jobs: Sequence[Job]) -> Table:
    """One row per job."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True, min_width=36)
    for title in ("status", "config", "progress", "age", "waits for"):
        table.add_column(title)
    for job in jobs:
        status = status_of(job)
        cells = (visible(config_of(job)), progress_of(job), age(job.created_at), waiting_of(job))
        table.add_row(escape(visible(job.id)), f"[{_STYLES[status]}]{status}", *(escape(cell) for cell in cells))
    return table


def print_job(console: Console, job: JobDetail, artifacts: Sequence[JobArtifact]) -> None:
    """Everything that is known of a job."""
    status = status_of(job)
    rows: list[tuple[str, str]] = [("created", moment(job.created_at))]
    if job.started_at:
        rows.append(("started", moment(job.started_at)))
    if job.finished_at:
        rows.append(("finished", moment(job.finished_at)))
    if job.retry_of:
        rows.append(("continues", job.retry_of))
    if job.cancel_requested and job.finished_at is None:
        rows.append(("cancelled", "it ends at its next step"))
    if waits := waiting_of(job):
        rows.append(("waits for", waits))
    if progress := progress_of(job):
        rows.append(("progress", progress))
    rows += [("metadata", f"{key}: {value}") for key, value in job.metadata.items()]
    rows += _training_rows(job)
    rows += _result_rows(job.result or {})
    console.print(f"Job {escape(visible(job.id))}  [{_STYLES[status]}]{status}")
    _print_rows(console, rows)
    if job.attempts:
        table = Table("attempt", "node", "started", "time", "outcome", "error", box=None, pad_edge=False)
        for attempt in job.attempts:
            taken = duration(((attempt.ended_at or datetime.now(UTC)) - attempt.started_at).total_seconds())
            cells = (attempt.node, moment(attempt.started_at), taken, attempt.outcome or "runs", attempt.error or "")
            table.add_row(str(attempt.number), *(escape(visible(cell)) for cell in cells))
        console.print()
        console.print(table)
    if artifacts:
        table = Table("file", "kind", "epoch", "size", "path", box=None, pad_edge=False)
        for file in artifacts:
            cells = (file.name, file.kind, str(file.epoch), size_of(file.size), file.path)
            table.add_row(*(escape(visible(cell)) for cell in cells))
        console.print()
        console.print(table)


def config_of(job: Job) -> str:
    """Such as "Portrait (sd15)"; empty where the server does not say."""
    return f"{job.lora_config_name} ({job.model_name})" if job.lora_config_name else ""


def status_of(job: Job) -> str:
    """The status, with cancelled jobs apart from failed ones."""
    return "cancelled" if job.status == "failed" and (job.result or {}).get("cancelled") else job.status


def progress_of(job: Job) -> str:
    """Such as "epoch 3/12, 25%, 40 seconds left", or the stage outside of training; empty where nothing is known."""
    result = job.result or {}
    if job.status == "completed":
        return "done"
    if job.status == "running" and job.stage not in (None, "training"):
        return visible(job.stage or "")
    progress = result.get("progress")
    if not isinstance(progress, Mapping):
        return ""
    return progress_text(progress)


def progress_text(progress: Mapping[str, Any]) -> str:
    """Progress as a worker reported it; a third-party worker may send anything."""
    parts = [f"epoch {progress.get('currentEpoch', '?')}/{progress.get('totalEpochs', '?')}"]
    step, total = progress.get("step"), progress.get("totalSteps")
    if isinstance(step, int) and isinstance(total, int) and total > 0:
        parts.append(f"{100 * step // total}%")
    if left := progress.get("estimatedTimeRemaining"):
        parts.append(f"{left} left")
    return visible(", ".join(parts))


def waiting_of(job: Job) -> str:
    """Why a pending job is not running, its place and its likely start."""
    if job.status != "pending":
        return ""
    about = [] if job.queue_position is None else [f"number {job.queue_position} in the queue"]
    if job.estimated_start is not None:
        about.append(f"starts about {moment(job.estimated_start)}")
    reason = job.waiting or "a worker"
    return visible(f"{reason.removesuffix('.')} ({', '.join(about)})" if about else reason)


def event_line(event: JobEvent) -> str:
    """One event as one line."""
    data = event.data
    match event.type:
        case "status":
            parts = [str(data.get("status", "")), str(data.get("error") or "")]
            text = ": ".join(part for part in parts if part)
        case "stage":
            count = f" {data['done']}/{data['total']}" if data.get("total") else ""
            text = f"{data.get('stage', '')}{count}"
        case "progress":
            loss = data.get("loss")
            text = progress_text(data) + (f", loss {loss:.4f}" if isinstance(loss, float) else "")
        case "validation":
            text = f"epoch {data.get('epoch')}: loss {data.get('loss')}"
        case "checkpoint":
            text = f"epoch {data.get('epoch')}: {data.get('path')}"
        case "sample":
            text = f"epoch {data.get('epoch')}: {', '.join(map(str, data.get('paths', ())))}"
        case "warning":
            text = str(data.get("message", ""))
        case "cancel":
            text = "asked to end"
    return visible(f"{moment(event.created_at)}  {event.type:<10}  {text}".rstrip()).replace("\n", " ")


def age(since: datetime) -> str:
    """How long ago, in one unit: 40s, 5m, 3h, 2d."""
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def moment(time: datetime) -> str:
    """A time on this machine's clock."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def size_of(count: int) -> str:
    """Bytes in a readable unit."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _training_rows(job: JobDetail) -> list[tuple[str, str]]:
    if job.training is None:
        return []
    config, dataset = job.training.config, job.training.dataset
    named = ("epochs", "batchSize", "resolution", "learningRate", "networkDim", "networkAlpha")
    settings = ", ".join(f"{name} {config[name]}" for name in named if name in config)
    return [
        ("config", f"{config.get('name')} ({config.get('modelName')})"),
        ("settings", f"{settings}, seed {job.training.seed}"),
        ("dataset", str(dataset.get("path"))),
        ("output", job.training.output_dir),
    ]


def _result_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    titles = {
        "error": "error",
        "code": "code",
        "loraPath": "LoRA",
        "finalLoss": "final loss",
        "validationLoss": "validation loss",
        "trainingTimeMinutes": "minutes",
    }
    rows = [(title, str(result[name])) for name, title in titles.items() if result.get(name) not in (None, "")]
    kept = result.get("partialCheckpoints")
    if isinstance(kept, list) and kept:
        rows.append(("kept", ", ".join(map(str, kept))))
    warnings = result.get("warnings")
    return [*rows, *(("warning", str(text)) for text in (warnings if isinstance(warnings, list) else ()))]


def _print_rows(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in rows:
        table.add_row(title, escape(visible(text)))
    console.print(table)
