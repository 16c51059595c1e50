"""Run: a finished training, to look at and to draw with."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from influencerai.domain import TrainingResult, TrainingSpec
from influencerai.domain.plain_values import path_text
from influencerai.errors import CheckpointError
from influencerai.generate.pictures import Pictures
from influencerai.generate.sampler import Sampler, checked_prompts
from influencerai.generate.sampling import DEFAULT_GUIDANCE, DEFAULT_STEPS
from influencerai.models.quiet import quiet_libraries
from influencerai.progress.curve import plot_loss
from influencerai.settings import Settings
from influencerai.train.runs.best_epoch import BestEpoch, best_epoch
from influencerai.train.runs.folder import find_run
from influencerai.train.runs.history import HISTORY_FILE, Record, read_history

if TYPE_CHECKING:
    from influencerai.progress.figure import ShownFigure


@dataclass(frozen=True, kw_only=True, repr=False)
class Run:
    """A finished training: what `Trainer.train` returns, and `Run.open` finds again.

    A notebook shows it as a card with the loss curve.
    """

    spec: TrainingSpec
    result: TrainingResult
    output_dir: Path
    run_dir: Path
    settings: Settings

    @classmethod
    def open(cls, path: str | Path, *, settings: Settings | None = None) -> Run:
        """The finished run in `path`: its run folder, its output folder, or one of its LoRA files.

        The root is the folder whose `.influencerai/runs` holds the run, unless `settings` name another.

        Raises:
            CheckpointError: there is no finished run of our own.
            ValidationError: that is no path.
        """
        folder = find_run(Path(path_text(path, field="path")))
        root = folder.path.parents[2]
        if not folder.is_finished:
            raise CheckpointError(
                f"The run in {folder.path} is not finished.",
                remedy="Resume it: train(..., resume=True), or --resume on the command line.",
            )
        try:
            result = TrainingResult.model_validate(folder.result)
        except pydantic.ValidationError as error:
            raise CheckpointError(
                f"The result of the run in {folder.path} cannot be read: its result.json is damaged.",
                remedy="Its LoRA files are whole. Start a new run without resuming, or delete that folder.",
            ) from error
        settings = settings or Settings.load(root=root)
        output_dir = (settings.root / result.lora_path).parent
        return cls(spec=folder.spec, result=result, output_dir=output_dir, run_dir=folder.path, settings=settings)

    @property
    def name(self) -> str:
        """Name of the configuration."""
        return self.spec.config.name

    @property
    def lora_path(self) -> Path:
        """The final LoRA file."""
        return self.settings.root / self.result.lora_path

    @cached_property
    def history(self) -> list[Record]:
        """One record per optimizer step: step, epoch, loss, learningRate, imagesPerSecond."""
        return [record for record in self._records if record["type"] == "step"]

    @cached_property
    def validation_history(self) -> list[Record]:
        """One record per validation: step, epoch, loss."""
        return [record for record in self._records if record["type"] == "validation"]

    @property
    def best_epoch(self) -> BestEpoch | None:
        """Where the validation loss was lowest, and the file to try first; None where nothing was held out."""
        return best_epoch(self.spec, self.validation_history, output_dir=self.output_dir, final=self.lora_path)

    def plot(self, path: str | Path | None = None) -> ShownFigure:
        """Loss over the steps, its running mean, and validation loss where there is one; saved to `path` if given."""
        steps, validations = (
            [(int(record["step"]), float(record["loss"])) for record in records]
            for records in (self.history, self.validation_history)
        )
        rates = [(int(record["step"]), float(record["learningRate"])) for record in self.history]
        return plot_loss(steps, validations, rates=rates, title=self.spec.config.name, path=path)

    def sample(
        self,
        prompt: str | Sequence[str],
        *,
        count: int = 1,
        seed: int = 0,
        strength: float = 1.0,
        steps: int = DEFAULT_STEPS,
        guidance: float = DEFAULT_GUIDANCE,
        negative_prompt: str = "",
    ) -> Pictures:
        """`count` pictures of every prompt, drawn with the LoRA at `strength`; see `Sampler.draw`.

        They are a list of Pillow's images, prompt by prompt, which a notebook shows as one grid.
        """
        quiet_libraries()
        prompts = checked_prompts(prompt)
        rows = self._sampler.draw(
            prompts,
            lora=self.lora_path,
            strength=strength,
            count=count,
            seed=seed,
            size=self.spec.config.resolution,
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
        )
        columns = [f"seed {seed + index}" for index in range(count)]
        return Pictures(list(zip(prompts, rows, strict=True)), columns=columns)

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {', '.join(f'{key} {value}' for key, value in self._facts.items())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in self._facts.items()
        )
        picture = ""
        with suppress(ModuleNotFoundError, CheckpointError):
            data = b64encode(self.plot()._repr_png_()).decode()
            picture = f'<img alt="Loss over the steps" src="data:image/png;base64,{data}">'
        return f"<b>{html.escape(self.name)}</b><table>{rows}</table>{picture}"

    @property
    def _facts(self) -> dict[str, str]:
        """What a reader wants to know first."""
        result = self.result
        validation = {} if result.validation_loss is None else {"validation loss": f"{result.validation_loss:.4f}"}
        best = self.best_epoch
        lowest = {"lowest validation loss": f"epoch {best.epoch}, {best.loss:.4f}: {best.file.name}"} if best else {}
        return {
            "mean loss of the last epoch": f"{result.final_loss:.4f}",
            **validation,
            **lowest,
            "minutes": f"{result.training_time_minutes:g}",
            "files": f"{len(result.checkpoints)} in {self.output_dir}",
            "LoRA": self.lora_path.name,
        }

    @cached_property
    def _records(self) -> list[Record]:
        return read_history(self.run_dir / HISTORY_FILE)

    @cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self.spec.model.name, settings=self.settings, plan=self.spec.plan)
