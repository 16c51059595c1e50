"""The end of a training in words: its file, its losses by name, and the command that shows what it learned."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from influencerai.cli.resume_command import program
from influencerai.domain.lora_layout import READERS, Layout
from influencerai.progress.text import short_path, visible

if TYPE_CHECKING:
    from influencerai.train.runs.run import Run

_PICTURES = {"loss.png": "the loss", "samples.png": "the samples by epoch"}


def end_lines(run: Run) -> Iterator[str]:
    """What a user wants to know of a finished run, most important first."""
    result, best = run.result, run.best_epoch
    layout: Layout = "diffusers" if run.spec.options.file_format == "diffusers" else "kohya"
    yield visible(f"LoRA: {short_path(run.lora_path)}")
    yield f"Layout {layout}, for {READERS[layout]}"
    if not run.history:
        return
    validation = "" if result.validation_loss is None else f"; validation loss {result.validation_loss:.4f}"
    yield f"Mean loss of the last epoch {result.final_loss:.4f}{validation}"
    count = len(result.checkpoints)
    yield f"{count} {'file' if count == 1 else 'files'}, {result.training_time_minutes:g} minutes"
    drawn = [f"{short_path(run.output_dir / name)} ({text})" for name, text in _PICTURES.items() if _is_file(run, name)]
    if drawn:
        yield visible(f"Pictures: {', '.join(drawn)}")
    if best:
        yield visible(best.sentence)
    first = best.file if best else run.lora_path
    yield visible(f"Try it:\n  {_command(run, first)}")
    if count > 1:
        yield visible(f"Compare all files:\n  {_command(run, run.output_dir)}")


def _is_file(run: Run, name: str) -> bool:
    return (run.output_dir / name).is_file()


def _command(run: Run, path: Path) -> str:
    """`influencerai sample` as it can be pasted into a shell of the same settings."""
    root = run.settings.root.resolve()
    shown = path.resolve()
    name = shown.relative_to(root) if shown.is_relative_to(root) else shown
    return shlex.join([*program(), "sample", str(name), "--prompt", _prompt(run)])


def _prompt(run: Run) -> str:
    """The run's first sample prompt, or else its trigger word, or else its first caption."""
    options = run.spec.options
    captions = [sample.caption for sample in run.spec.samples if sample.caption]
    return next(iter([*options.sample_prompts, *filter(None, [options.trigger_word]), *captions]), "a portrait")
