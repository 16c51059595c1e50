"""SIGKILL campaign: runs killed at random moments and resumed must end with the bytes of undisturbed ones.

Each round kills one real training process (embedded base model, sample character, everything random turned on) at a
uniformly random moment of its life, starts it again until it ends, and compares every LoRA file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from influencerai.demo.characters import write_character
from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.settings import Settings
from influencerai.train.backend import RunContext, load_backend
from influencerai.train.preparation import prepare

OPTIMIZERS = ("AdamW", "AdamW8bit", "Adafactor", "Prodigy", "Lion", "ScheduleFreeAdamW")
META: dict[str, Any] = {
    "gradientAccumulation": 2,
    "ema": True,
    "captionDropout": 0.2,
    "shuffleTags": True,
    "flip": True,
    "saveEveryNEpochs": 1,
    "validationSplit": 0.1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = campaign(Path(folder), kills=arguments.kills, seed=arguments.seed)
    text = (
        f"{figures['kills']} SIGKILLs at random moments, {figures['identical']} of {figures['kills']} runs ended with "
        f"files identical to the undisturbed run's.\n\nWhere they hit: {figures['progress_at_kill']}."
    )
    config = {"meta": META, "optimizers": OPTIMIZERS, "seed": arguments.seed}
    write_report(arguments.out, "resume", config=config, figures=figures, text=text)
    if figures["identical"] != figures["kills"]:
        raise SystemExit(1)


def campaign(root: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Kill `kills` runs once each. Returns the counts."""
    moments = random.Random(seed)
    settings = Settings(root=root, allow_downloads=False, threads=2, device="cpu")
    dataset = root / "dataset"
    write_character("ava", dataset)
    references: dict[str, tuple[TrainingSpec, dict[str, bytes], float]] = {}
    identical = 0
    where: Counter[str] = Counter()
    for number, name in zip(range(kills), cycle(OPTIMIZERS), strict=False):
        if name not in references:
            references[name] = _undisturbed(
                root / f"straight-{name}", dataset, settings, name, text=name != "AdamW8bit"
            )
        spec, files, seconds = references[name]
        place = root / f"killed-{number}"
        child = _start(spec, place, dataset, settings)
        child.join(moments.uniform(0, seconds))
        if child.is_alive():
            child.kill()
            child.join()
            where[_progress(place)] += 1
        else:
            where["after its end"] += 1
        child = _start(spec, place, dataset, settings)
        child.join()
        same = child.exitcode == 0 and _files(place) == files
        identical += same
        print(f"{number + 1}/{kills} {name}: {'identical' if same else 'DIFFERENT'}", flush=True)
        shutil.rmtree(place)
    return {"kills": kills, "identical": identical, "progress_at_kill": dict(where)}


def _undisturbed(
    place: Path, dataset: Path, settings: Settings, optimizer: str, *, text: bool
) -> tuple[TrainingSpec, dict[str, bytes], float]:
    document = {
        "name": "campaign",
        "modelName": "influencerai/tiny-avatars",
        "epochs": 3,
        "batchSize": 2,
        "resolution": 128,
        "networkDim": 4,
        "networkAlpha": 2,
        "learningRate": 1.0 if optimizer == "Prodigy" else 0.001,
        "meta": META | {"optimizer": optimizer, "trainTextEncoder": text},
    }
    spec = prepare(LoraConfig.parse(document), dataset, settings=settings).spec
    begun = time.monotonic()
    child = _start(spec, place, dataset, settings)
    child.join()
    if child.exitcode:
        raise SystemExit(f"The undisturbed run with {optimizer} failed.")
    return spec, _files(place), time.monotonic() - begun


def _start(spec: TrainingSpec, place: Path, dataset: Path, settings: Settings) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["influencerai.train.diffusers_backend", "influencerai.train.families.sd15"])
    child = context.Process(target=_train, args=(spec.model_dump_json(by_alias=True), place, dataset, settings))
    child.start()
    return child


def _train(document: str, place: Path, dataset: Path, settings: Settings) -> None:
    spec = TrainingSpec.model_validate_json(document)
    for folder in ("run", "out"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    context = RunContext(
        dataset_dir=dataset,
        run_dir=place / "run",
        output_dir=place / "out",
        root=place,
        models_dirs=settings.models_dirs,
        cache_dir=place / "cache",
        cache_max_bytes=None,
        max_image_pixels=settings.max_image_pixels,
        emit=lambda event: None,
        should_stop=lambda: False,
    )
    load_backend("diffusers").train(spec, context)


def _files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place / "out").glob("*.safetensors")}


def _progress(place: Path) -> str:
    history = place / "run" / "history.jsonl"
    if not history.exists():
        return "before the first step"
    return "while training" if history.read_text().count("\n") else "at the first step"


if __name__ == "__main__":
    main()
