"""Curve: the loss of a training over its steps, as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from influencerai.progress.figure import ShownFigure

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
    steps: Sequence[Point],
    validations: Sequence[Point],
    *,
    title: str,
    rates: Sequence[Point] = (),
    path: str | Path | None = None,
) -> ShownFigure:
    """Loss per step, its mean over a twentieth of the run, the validation loss with its lowest point, and the rate.

    Saved to `path` if given.
    """
    from influencerai.progress.figure import ShownFigure

    figure = ShownFigure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    numbers, losses = [step for step, _ in steps], [loss for _, loss in steps]
    window = _window(steps)
    axes.plot(numbers, losses, color="tab:blue", alpha=0.3 if window > 1 else 1, linewidth=0.8, label="loss")
    if window > 1:
        axes.plot(numbers, _means(steps, window=window), color="tab:blue", label=f"mean of {window} steps")
    if validations:
        axes.plot(*zip(*validations, strict=True), color="tab:orange", marker="o", markersize=4, label="validation")
        step, loss = min(validations, key=lambda point: (point[1], point[0]))
        axes.plot([step], [loss], color="tab:orange", marker="*", markersize=13, linewidth=0, label="lowest validation")
    handles, labels = axes.get_legend_handles_labels()
    if rates:
        right = axes.twinx()
        right.plot(*zip(*rates, strict=True), color="tab:gray", linewidth=1, linestyle="--", label="learning rate")
        right.set_ylabel("learning rate", color="tab:gray")
        right.set_ylim(bottom=0)
        right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        of_rate = right.get_legend_handles_labels()
        handles, labels = handles + of_rate[0], labels + of_rate[1]
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.25)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize="small")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def plot_losses(
    losses: Mapping[str, tuple[Sequence[Point], Sequence[Point]]], *, path: str | Path | None = None
) -> ShownFigure:
    """The mean losses of several runs over each other; their validation losses are dashed.

    Args:
        losses: {label: (points of the training loss, points of the validation loss)}
        path: a file to write the figure to.
    """
    from influencerai.progress.figure import ShownFigure

    figure = ShownFigure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for label, (steps, validations) in losses.items():
        [line] = axes.plot([step for step, _ in steps], _means(steps, window=_window(steps)), label=label)
        if validations:
            axes.plot(*zip(*validations, strict=True), color=line.get_color(), linestyle="--", marker="o", markersize=3)
    axes.set(xlabel="step", ylabel="loss (mean of a twentieth of the run)")
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _window(steps: Sequence[Point]) -> int:
    """Steps in a running mean: a twentieth of the run."""
    return max(1, len(steps) // 20)


def _means(steps: Sequence[Point], *, window: int) -> list[float]:
    losses = [loss for _, loss in steps]
    return [sum(losses[max(0, end - window) : end]) / min(end, window) for end in range(1, len(losses) + 1)]


def _append(points: list[Point], point: Point) -> None:
    while points and points[-1][0] >= point[0]:
        points.pop()
    points.append(point)
