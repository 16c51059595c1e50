"""The loss curve as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from influencerai.train.history import Record


def plot_loss(
    steps: Sequence[Record], validations: Sequence[Record], *, title: str, path: str | Path | None = None
) -> Figure:
    """Loss per step, its mean over a twentieth of the run, and the validation loss."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    losses = [record["loss"] for record in steps]
    numbers = [record["step"] for record in steps]
    window = max(1, len(losses) // 20)
    means = [sum(losses[max(0, end - window) : end]) / min(end, window) for end in range(1, len(losses) + 1)]
    axes.plot(numbers, losses, color="tab:blue", alpha=0.3, linewidth=0.8, label="loss")
    axes.plot(numbers, means, color="tab:blue", label=f"mean of {window} steps")
    if validations:
        axes.plot(
            [record["step"] for record in validations],
            [record["loss"] for record in validations],
            color="tab:orange",
            marker="o",
            label="validation",
        )
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.legend()
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
