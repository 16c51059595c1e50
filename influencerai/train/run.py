"""Run: a finished training, to look at and to draw with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image

from influencerai.domain import TrainingResult, TrainingSpec
from influencerai.live.curve import plot_loss
from influencerai.settings import Settings
from influencerai.train.history import Record, read_history
from influencerai.train.quiet import quiet_libraries
from influencerai.train.recorder import HISTORY_FILE
from influencerai.train.sampler import Sampler
from influencerai.train.sampling import DEFAULT_GUIDANCE, DEFAULT_STEPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `Trainer.train` returns."""

    spec: TrainingSpec
    result: TrainingResult
    output_dir: Path
    run_dir: Path
    settings: Settings

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

    def plot(self, path: str | Path | None = None) -> Figure:
        """Loss over the steps, its running mean, and validation loss where there is one; saved to `path` if given."""
        steps, validations = (
            [(int(record["step"]), float(record["loss"])) for record in records]
            for records in (self.history, self.validation_history)
        )
        return plot_loss(steps, validations, title=self.spec.config.name, path=path)

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
    ) -> list[Image]:
        """`count` pictures of every prompt, drawn with the LoRA at `strength`; see `Sampler.draw`."""
        quiet_libraries()
        rows = self._sampler.draw(
            [prompt] if isinstance(prompt, str) else prompt,
            lora=self.lora_path,
            strength=strength,
            count=count,
            seed=seed,
            size=self.spec.config.resolution,
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
        )
        return [image for row in rows for image in row]

    @cached_property
    def _records(self) -> list[Record]:
        return read_history(self.run_dir / HISTORY_FILE)

    @cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self.spec.model.name, settings=self.settings, plan=self.spec.plan)
