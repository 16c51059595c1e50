"""SIGKILL campaign: runs killed at random moments and resumed must end with the bytes of undisturbed ones.

Each round kills one real training process (embedded base model, sample character, everything random turned on) at a
uniformly random moment of its life, resumes it as the command line would, and compares every LoRA file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from influencerai.demo.characters import write_character
from influencerai.domain import LoraConfig
from influencerai.settings import Settings
from influencerai.train.trainer import Trainer

OPTIMIZERS = ("AdamW", "AdamW8bit", "Adafactor", "Prodigy", "Lion", "ScheduleFreeAdamW")
META: dict[str, Any] = {
    "gradientAccumulation": 2,
    "ema": True,
    "captionDropout": 0.2,
    "shuffleTags": True,
    "flip": True,
    "saveEveryNEpochs": 1,
    "validationSplit": 0.1,
    "trainTextEncoder": True,
    "targetModules": "all",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # the files' only time
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
    references: dict[str, tuple[dict[str, bytes], float]] = {}
    identical = 0
    where: Counter[str] = Counter()
    for number, name in zip(range(kills), cycle(OPTIMIZERS), strict=False):
        if name not in references:
            references[name] = _undisturbed(root / f"straight-{name}", name)
        files, seconds = references[name]
        place = root / f"killed-{number}"
        while not _kill(place, name, after=moments.uniform(0, seconds)):
            shutil.rmtree(place)  # it had ended before
        where[_progress(place)] += 1
        child = _start(place, name, resume=_is_begun(place))
        child.join()
        same = child.exitcode == 0 and _files(place) == files
        identical += same
        print(f"{number + 1}/{kills} {name}: {'identical' if same else 'DIFFERENT'}", flush=True)
        shutil.rmtree(place)
    return {"kills": kills, "identical": identical, "progress_at_kill": dict(where)}


def _undisturbed(place: Path, optimizer: str) -> tuple[dict[str, bytes], float]:
    begun = time.monotonic()
    child = _start(place, optimizer, resume=False)
    child.join()
    if child.exitcode:
        raise SystemExit(f"The undisturbed run with {optimizer} failed.")
    return _files(place), time.monotonic() - begun


def _kill(place: Path, optimizer: str, *, after: float) -> bool:
    """Whether the run was still alive to be killed `after` seconds."""
    child = _start(place, optimizer, resume=False)
    child.join(after)
    child.kill()
    child.join()
    return bool(child.exitcode == -signal.SIGKILL)


def _start(place: Path, optimizer: str, *, resume: bool) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["influencerai.train.trainer", "influencerai.models.families.sd15"])
    child = context.Process(target=_train, args=(place, optimizer, resume))
    child.start()
    return child


def _train(place: Path, optimizer: str, resume: bool) -> None:
    """Run `influencerai train`, with --resume or without."""
    if not (place / "dataset").exists():
        write_character("ava", place / "drawn")
        (place / "drawn").rename(place / "dataset")
    document = {
        "name": "campaign",
        "modelName": "influencerai/tiny-avatars",
        "epochs": 3,
        "batchSize": 2,
        "resolution": 128,
        "networkDim": 32,
        "networkAlpha": 16,
        "learningRate": 1.0 if optimizer == "Prodigy" else 0.001,
        "outputPath": "loras/campaign",
        "meta": META | {"optimizer": optimizer},
    }
    settings = Settings(root=place, allow_downloads=False, threads=2, device="cpu")
    Trainer(LoraConfig.parse(document), settings=settings).train("dataset", resume=resume)


def _is_begun(place: Path) -> bool:
    """Whether there is a run to resume; killed earlier, it is begun again."""
    return any((place / ".influencerai/runs").glob("*/spec.json"))


def _files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place / "loras/campaign").glob("*.safetensors")}


def _progress(place: Path) -> str:
    if not _is_begun(place):
        return "before the run"
    histories = list((place / ".influencerai/runs").glob("*/history.jsonl"))
    if not histories:
        return "while encoding and loading"
    states = list((place / ".influencerai/runs").glob("*/state-*.safetensors"))
    if any((place / "loras/campaign").glob("*-final.safetensors")):
        return "after the final file"
    return "while training, with a state" if states else "while training, before the first state"


if __name__ == "__main__":
    main()
