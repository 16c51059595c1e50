"""Curve: the loss of a training over its steps, as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.95
"""Share of the running mean that one report leaves of the shown loss."""
Point = tuple[int, float]
"""A step, from 1, and a loss."""


@dataclass(kw_only=True)
class LossCurve:
    """Points in the order of training; a training that was interrupted goes back to the step that it had saved."""

    steps: list[Point] = field(default_factory=list)
    validations: list[Point] = field(default_factory=list)

    def add(self, step: int, loss: float) -> None:
        """A point of the training loss."""
        _append(self.steps, (step, loss))

    def add_validation(self, step: int, loss: float) -> None:
        """A point of the validation loss."""
        _append(self.validations, (step, loss))


class RunningMean:
    """A mean that forgets, so that the noise of single timesteps does not hide the trend."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, value: float) -> float:
        """The mean after one more value."""
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * value
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        return self._sum / self._weight


def plot_loss(
    steps: Sequence[Point], validations: Sequence[Point], *, title: str, path: str | Path | None = None
) -> Figure:
    """Loss per step, its mean over a twentieth of the run, and the validation loss; saved to `path` if given."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    numbers, losses = [step for step, _ in steps], [loss for _, loss in steps]
    window = max(1, len(losses) // 20)
    means = [sum(losses[max(0, end - window) : end]) / min(end, window) for end in range(1, len(losses) + 1)]
    axes.plot(numbers, losses, color="tab:blue", alpha=0.3, linewidth=0.8, label="loss")
    axes.plot(numbers, means, color="tab:blue", label=f"mean of {window} steps")
    if validations:
        axes.plot(*zip(*validations, strict=True), color="tab:orange", marker="o", label="validation")
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _append(points: list[Point], point: Point) -> None:
    while points and points[-1][0] >= point[0]:
        points.pop()
    points.append(point)
