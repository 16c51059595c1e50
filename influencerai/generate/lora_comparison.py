"""LoraComparison: the same prompts from the same noise by the base model and by LoRA files at several strengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL.Image import Image

from influencerai.domain.output_path import slug
from influencerai.generate.comparison_grid import Row, Section, comparison_grid
from influencerai.generate.sampler import Sampler
from influencerai.generate.sampling import DEFAULT_GUIDANCE, DEFAULT_STEPS

BASE = "base model"

Pictures = list[list[Image]]
"""A list per prompt, a picture per seed."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A LoRA file and its name in the grid, such as `epoch 5`."""

    label: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class LoraComparison:
    """Settings of a comparison. Picture i of a prompt comes from the noise of `seed` + i in every column."""

    candidates: Sequence[Candidate]
    strengths: Sequence[float]
    prompts: Sequence[str]
    count: int = 1
    seed: int = 0
    with_base: bool = True
    size: int | None = None
    steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    negative_prompt: str = ""

    @property
    def has_rows_of_strengths(self) -> bool:
        """Whether rows are strengths and columns files; else rows are seeds."""
        return len(self.candidates) > 1 and len(self.strengths) > 1

    @property
    def columns(self) -> list[str]:
        base = [BASE] if self.with_base else []
        if self.has_rows_of_strengths or len(self.strengths) == 1:
            return base + [candidate.label for candidate in self.candidates]
        return base + [f"strength {strength:g}" for strength in self.strengths]

    @property
    def rows(self) -> list[int]:
        """Rows of each section."""
        if self.has_rows_of_strengths:
            return [len(self.strengths)] * (len(self.prompts) * self.count)
        return [self.count] * len(self.prompts)

    @property
    def total(self) -> int:
        """Pictures to draw."""
        variants = len(self.candidates) * len(self.strengths) + self.with_base
        return variants * len(self.prompts) * self.count

    def draw(self, sampler: Sampler, *, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Drawn:
        """Draw everything; see `Sampler.draw` for what is raised."""
        done = 0

        def drawn(lora: Path | None, strength: float) -> Pictures:
            nonlocal done
            begun = done
            pictures = sampler.draw(
                self.prompts,
                lora=lora,
                strength=strength,
                count=self.count,
                seed=self.seed,
                size=side,
                steps=self.steps,
                guidance=self.guidance,
                negative_prompt=self.negative_prompt,
                on_progress=lambda now, _: on_progress(begun + now, self.total),
            )
            done += len(self.prompts) * self.count
            return pictures

        side = self.size or sampler.side(lora=self.candidates[0].path, size=None)
        base = drawn(None, 0.0) if self.with_base else None
        cells = {
            (index, strength): drawn(candidate.path, strength)
            for index, candidate in enumerate(self.candidates)
            for strength in self.strengths
        }
        return Drawn(comparison=self, base=base, cells=cells)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The pictures of a comparison: of the base model, and by (index of the file, strength)."""

    comparison: LoraComparison
    base: Pictures | None
    cells: dict[tuple[int, float], Pictures] = field(default_factory=dict)

    def grid(self, *, title: str = "") -> Image:
        """All in one labelled picture."""
        asked = self.comparison
        sections = [
            Section(title=self._title(prompt, seed), rows=list(self._rows(prompt, seed)))
            for prompt in range(len(asked.prompts))
            for seed in (range(asked.count) if asked.has_rows_of_strengths else (None,))
        ]
        return comparison_grid(sections, columns=asked.columns, title=title)

    def pictures(self) -> Iterator[tuple[str, Image]]:
        """Every picture with a name for its file, without a suffix; names sort by prompt, seed and column."""
        asked = self.comparison
        columns = [] if self.base is None else [("base-model", self.base)]
        for (index, strength), cell in self.cells.items():
            label = slug(asked.candidates[index].label, default=f"lora-{index + 1}", longest=60)
            columns.append((f"{label}-strength-{strength:g}", cell))
        for number, prompt in enumerate(asked.prompts):
            words = slug(prompt, default="prompt", longest=40)
            for offset in range(asked.count):
                for place, (label, cell) in enumerate(columns):
                    name = f"{number + 1:02d}-{words}-seed-{asked.seed + offset}-{place:02d}-{label}"
                    yield name, cell[number][offset]

    def _title(self, prompt: int, seed: int | None) -> str:
        text = self.comparison.prompts[prompt]
        return text if seed is None else f"seed {self.comparison.seed + seed}: {text}"

    def _rows(self, prompt: int, seed: int | None) -> Iterator[Row]:
        asked = self.comparison
        if seed is not None:
            for strength in asked.strengths:
                cells = [self.cells[index, strength][prompt][seed] for index in range(len(asked.candidates))]
                yield Row(label=f"strength {strength:g}", images=self._after_base(prompt, seed, cells))
            return
        for offset in range(asked.count):
            cells = [cell[prompt][offset] for cell in self.cells.values()]
            yield Row(label=f"seed {asked.seed + offset}", images=self._after_base(prompt, offset, cells))

    def _after_base(self, prompt: int, seed: int, cells: list[Image]) -> list[Image]:
        return cells if self.base is None else [self.base[prompt][seed], *cells]
