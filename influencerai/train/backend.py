"""Backend: what executes a TrainingSpec; and what a run is given to work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from influencerai.domain import Event, TrainingResult, TrainingSpec
from influencerai.errors import TrainingError
from influencerai.train.ranks import Ranks

ENTRY_POINT_GROUP = "influencerai.backends"


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Folders of one run, and its two lines to the outside."""

    dataset_dir: Path
    run_dir: Path
    """Resumable state and history."""
    output_dir: Path
    """Reserved for this run; the files users get."""
    root: Path
    """`loraPath` is relative to it where the output lies under it."""
    models_dirs: tuple[Path, ...]
    cache_dir: Path
    cache_max_bytes: int | None
    max_image_pixels: int
    emit: Callable[[Event], None]
    """Progress leaves here."""
    should_stop: Callable[[], bool]
    """Asked at every step boundary; True saves the state and ends the run."""
    model_name: str | None = None
    """Where the base model lies now, if not under the name of the spec; its fingerprint is checked as always."""
    cancel_requested: Callable[[], bool] = lambda: False
    """Whether nobody is to go on after this stop: the run publishes its last epochs, as a failed one does."""
    ranks: Ranks = field(default_factory=Ranks)
    """Who trains along; only the first rank asks `should_stop`, reports and writes into the run's folders."""


class Backend(Protocol):
    """One way to execute a spec."""

    name: str

    def train(self, spec: TrainingSpec, context: RunContext) -> TrainingResult:
        """Execute the run, continuing from the newest state in `context.run_dir` if there is one.

        Called in each of `context.ranks`, and returns the same in all.

        Raises:
            ConnectionError: another rank is gone. What another rank raises is raised in all.
            StoppedError: the run was asked to stop and has saved its state.
            DivergedError: the loss is not a number any more.
            OutOfMemoryError: the device is too small; names the smaller setting to use.
            InfluencerAIError: anything else that is wrong with dataset, model or state.
        """
        ...


def load_backend(name: str) -> Backend:
    """The backend registered as `name`.

    Raises:
        TrainingError: when there is none.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise TrainingError(f"There is no backend '{name}'.", remedy=f"Known backends: {', '.join(sorted(found))}.")
    backend: Backend = found[name].load()()
    return backend
