"""One resumable stage of pretraining: its checkpoint, its clock and its log."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tools.tiny_avatars import team

State = dict[str, Any]


class Stage:
    """Keeps `<name>.pt` up to date in the work folder; training time adds up over restarts."""

    def __init__(self, name: str, folder: Path, *, save_every_s: float = 120.0) -> None:
        self.name = name
        self.folder = folder
        self.save_every_s = save_every_s
        self.elapsed_before_s = 0.0
        self.started = self.saved = time.monotonic()

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.pt"

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, those of earlier runs included."""
        return self.elapsed_before_s + time.monotonic() - self.started

    def resume(self) -> State | None:
        """The state last saved, or None at the first start."""
        if not self.path.exists():
            return None
        saved: State = torch.load(self.path, weights_only=True)
        self.elapsed_before_s = saved["elapsed_s"]
        self.started = self.saved = time.monotonic()
        return dict(saved["state"])

    def save(self, state: State) -> None:
        """Replace the checkpoint in one rename, so that a kill leaves the old one or the new one."""
        part = self.path.with_suffix(".part")
        torch.save({"elapsed_s": self.elapsed_s, "state": state}, part)
        part.replace(self.path)
        self.saved = time.monotonic()

    def save_if_due(self, state: Callable[[], State]) -> bool:
        """Save when `save_every_s` have passed since the last time; says whether it did."""
        due = team.rank() == 0 and time.monotonic() - self.saved >= self.save_every_s
        if due:
            self.save(state())
        return due

    @classmethod
    def minutes(cls, name: str, folder: Path) -> float:
        """Training time of a stage up to its last checkpoint."""
        stage = cls(name, folder)
        stage.resume()
        return stage.elapsed_before_s / 60

    def log(self, step: int, **figures: float) -> None:
        """One JSON line per call, on the screen and in `log.jsonl`; the first member of a team speaks."""
        if team.rank() != 0:
            return
        rounded = {key: round(value, 5) for key, value in figures.items()}
        line = json.dumps({"stage": self.name, "step": step, "elapsed_s": round(self.elapsed_s), **rounded})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(line + "\n")


def step_generator(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """Randomness of one step, the same after a restart."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 31 + purpose)


def rate(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: linear warm-up, then `cosine` over the steps that are left."""
    if step < warmup:
        return (step + 1) / warmup
    return cosine((step - warmup) / max(1, steps - warmup))


def cosine(progress: float, *, floor: float = 0.02) -> float:
    """Half a cosine from 1 at the start (progress 0) down to `floor` at the end (progress 1)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(min(1.0, progress) * math.pi))
