"""Pictures of a finished run in its output folder: the loss, and the samples of every epoch side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from influencerai.domain import TrainingSpec
from influencerai.files import atomic_file
from influencerai.generate.comparison_grid import Row, Section, comparison_grid
from influencerai.generate.lora_comparison import BASE
from influencerai.generate.picture_record import encoded
from influencerai.progress.curve import plot_loss
from influencerai.train.runs.history import Record
from influencerai.train.runs.samples import sampled_files

LOSS_PLOT = "loss.png"
SAMPLES_SHEET = "samples.png"
_MOST_EPOCHS = 12
_LARGEST_SIDE = 320
"""Pixels of a sample in the sheet; `samples/` has them whole."""


def write_loss_plot(spec: TrainingSpec, records: Sequence[Record], *, output_dir: Path) -> Path | None:
    """Write the plot of a run's history; None where no step was trained.

    Raises:
        InfluencerAIError: the file cannot be written.
    """
    steps = [record for record in records if record["type"] == "step"]
    if not steps:
        return None
    validations = [(int(record["step"]), float(record["loss"])) for record in records if record["type"] == "validation"]
    figure = plot_loss(
        [(int(record["step"]), float(record["loss"])) for record in steps],
        validations,
        rates=[(int(record["step"]), float(record["learningRate"])) for record in steps],
        title=spec.config.name,
    )
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    atomic_file.write_atomic(output_dir / LOSS_PLOT, data.getvalue())
    return output_dir / LOSS_PLOT


def write_samples_sheet(spec: TrainingSpec, *, output_dir: Path, best: int | None = None) -> Path | None:
    """Write a grid of the run's samples: a section per prompt, a column per epoch, the base model first.

    `best` is the epoch with the lowest validation loss. None where nothing was drawn.

    Raises:
        InfluencerAIError: a sample cannot be read, or the file cannot be written.
    """
    prompts = spec.options.sample_prompts
    by_epoch: dict[int, dict[int, Path]] = {}
    for epoch, path in sampled_files(output_dir):
        by_epoch.setdefault(epoch, {})[int(path.name.split("-")[2])] = path
    epochs = _spread([epoch for epoch, found in by_epoch.items() if len(found) == len(prompts)], keep=best)
    if not prompts or not epochs:
        return None
    sections = [
        Section(title=prompt, rows=[Row(label="", images=[_thumbnail(by_epoch[epoch][index]) for epoch in epochs])])
        for index, prompt in enumerate(prompts)
    ]
    grid = comparison_grid(
        sections,
        columns=[_label(epoch, spec=spec, best=best) for epoch in epochs],
        title=f"{spec.config.name}, seed {spec.seed}",
    )
    atomic_file.write_atomic(output_dir / SAMPLES_SHEET, encoded(grid))
    return output_dir / SAMPLES_SHEET


def _spread(epochs: Sequence[int], *, keep: int | None) -> list[int]:
    """At most `_MOST_EPOCHS` of them: the first, the last, `keep`, and others at equal distances."""
    found = sorted(epochs)
    if len(found) <= _MOST_EPOCHS:
        return found
    last = len(found) - 1
    chosen = {found[round(index * last / (_MOST_EPOCHS - 1))] for index in range(_MOST_EPOCHS)}
    if keep in found and keep not in chosen:
        chosen.remove(min(chosen - {found[0], found[-1]}, key=lambda epoch: abs(epoch - keep)))
        chosen.add(keep)
    return sorted(chosen)


def _label(epoch: int, *, spec: TrainingSpec, best: int | None) -> str:
    start = Path(spec.origin.file).stem if spec.origin and spec.origin.step == 0 else BASE
    name = f"epoch {epoch}" if epoch else start
    return f"{name}, lowest validation" if epoch and epoch == best else name


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        found = image.convert("RGB")
        found.info = dict(image.info)
    found.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return found
