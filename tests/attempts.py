"""Orders for attempts at small jobs, on the embedded model and pictures of a sample character."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from influencerai.demo.characters import MODEL_ID, write_character
from influencerai.domain import TrainingSpec
from influencerai.job_process.messages import TrainingRequest
from influencerai.train.backend import load_backend
from tests.training_runs import RunPlace, make_config, make_settings

JOB = "0198f3a1-5c00-7000-8000-00000000000a"
DATASET = "data/datasets/ava"
OUTPUT = "data/loras/test-run"


def write_pictures(root: Path, *, count: int = 2) -> Path:
    """The first `count` pictures of a sample character, with captions, as the order's dataset."""
    everything = root / "everything"
    folder = root / DATASET
    folder.mkdir(parents=True)
    for picture in write_character("ava", everything)[:count]:
        for path in (picture, picture.with_suffix(".txt")):
            path.rename(folder / path.name)
    shutil.rmtree(everything)
    return folder


def make_request(place: Path, *, job: str = JOB, spec: TrainingSpec | None = None, **changes: Any) -> TrainingRequest:
    """Two epochs of two steps; `changes` replace fields of the order, `config` ones of the configuration."""
    root = changes.pop("root", place)
    settings = make_settings(root)
    fields: dict[str, Any] = {
        "job_id": job,
        "root": root,
        "dataset": DATASET,
        "config": make_config(MODEL_ID, **{"batchSize": 1} | changes.pop("config", {})),
        "output_dir": OUTPUT,
        "run_dir": root / ".influencerai/runs" / job,
        "blobs_dir": root / ".influencerai/blobs",
        "spec": spec,
        "models_dirs": settings.models_dirs,
        "cache_dir": settings.cache_dir,
        "max_image_pixels": settings.max_image_pixels,
        "device": "cpu",
        "threads": 1,
    }
    return TrainingRequest(**fields | changes)


def undisturbed(spec: TrainingSpec, order: TrainingRequest, place: Path) -> dict[str, bytes]:
    """The LoRA files of a run of `spec` in this process, by name."""
    run = RunPlace(place, dataset=order.run_dir / "dataset")
    load_backend("diffusers").train(
        spec, replace(run.context(), models_dirs=order.models_dirs, cache_dir=order.cache_dir)
    )
    return lora_files(run.output)


def lora_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
