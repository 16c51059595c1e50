"""Small real trainings for tests: a dataset of drawn pictures, a random base model, one spec run in several places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from influencerai.domain import Event, LoraConfig, TrainingResult, TrainingSpec
from influencerai.settings import Settings
from influencerai.train.backend import RunContext, load_backend
from influencerai.train.preparation import prepare

SIZES = [(160, 160), (200, 130), (130, 200), (160, 150), (220, 140)]


def write_dataset(folder: Path, *, count: int = 5, captions: bool = True) -> Path:
    """`count` pictures of a face in several aspect ratios, with captions of four tags."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        width, height = SIZES[index % len(SIZES)]
        image = Image.new("RGB", (width, height), (40 * index % 256, 200 - 30 * index % 200, 120))
        draw = ImageDraw.Draw(image)
        draw.ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=(230, 180, 150))
        draw.rectangle((width // 3, height // 2, width // 2, height // 2 + 10), fill=(20 * index, 0, 90))
        image.save(folder / f"{index:02d}.png")
        if captions:
            text = f"ohwx woman, smiling, color {index}, photo of the portrait"
            (folder / f"{index:02d}.txt").write_text(text)
    return folder


def make_config(model: Path | str, **changes: Any) -> LoraConfig:
    """Two short epochs at 128 pixels, rank 4; `changes` replace fields, `meta` is merged."""
    document: dict[str, Any] = {
        "name": "Test Run",
        "modelName": str(model),
        "epochs": 2,
        "batchSize": 2,
        "resolution": 128,
        "networkDim": 4,
        "networkAlpha": 2,
        "learningRate": 0.001,
        "outputPath": "data/loras/test-run",
        "meta": {},
    }
    return LoraConfig.parse(document | changes)


def make_settings(root: Path, **changes: Any) -> Settings:
    """Settings under `root`, with one thread, so that plans are equal on every machine."""
    fields: dict[str, Any] = {"allow_downloads": False, "threads": 1, "device": "cpu"}
    return Settings(root=root, **fields | changes)


def make_spec(config: LoraConfig, dataset: Path, *, settings: Settings) -> TrainingSpec:
    return prepare(config, dataset, settings=settings).spec


class RunPlace:
    """Folders of one execution of a spec, below `root`; `train` may be called again to go on."""

    def __init__(self, root: Path, *, dataset: Path, cache: Path | None = None) -> None:
        self.root = root
        self.dataset = dataset
        self.cache = cache or root / "cache"
        self.output = root / "out"
        self.run_dir = root / "run"
        self.events: list[Event] = []
        for folder in (self.output, self.run_dir):
            folder.mkdir(parents=True, exist_ok=True)

    def train(
        self, spec: TrainingSpec, *, should_stop: Callable[[], bool] | None = None, backend: str = "diffusers"
    ) -> TrainingResult:
        return load_backend(backend).train(spec, self.context(should_stop=should_stop))

    def context(self, *, should_stop: Callable[[], bool] | None = None) -> RunContext:
        return RunContext(
            dataset_dir=self.dataset,
            run_dir=self.run_dir,
            output_dir=self.output,
            root=self.root,
            models_dirs=(),
            cache_dir=self.cache,
            cache_max_bytes=None,
            max_image_pixels=10**8,
            emit=self.events.append,
            should_stop=should_stop or (lambda: False),
        )

    def final(self, spec: TrainingSpec) -> bytes:
        return (self.output / f"{spec.output_name}-final.safetensors").read_bytes()


def stop_after(steps: int) -> Callable[[], bool]:
    """A `should_stop` that says yes once it has been asked `steps` times."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None
