"""Does the character appear? Pictures sampled with a LoRA of the demo's own spec, read by an attribute classifier.

    python -m benchmarks.bench_quality --characters ava leo

Prompts carry the trigger, changing attributes that the sample set does not combine, and no word of the identity.
Reported: the share of pictures that carry the whole identity, and of what the prompt asks for, with the LoRA, with the
base model alone, and with the base model given the full description in words (the ceiling). A picture of a decoy, who
differs from the character in one or two attributes, must not pass for the character.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import write_report
from influencerai.demo.avatars import ATTRIBUTES, CHARACTERS, IDENTITY, Avatar, render
from influencerai.demo.captions import ALL, CHANGING, TRIGGER, compose
from influencerai.demo.characters import MODEL_ID, model_path
from influencerai.demo.spec import demo_config
from influencerai.generate.sampler import Sampler
from influencerai.generate.sampling import DEFAULT_GUIDANCE, DEFAULT_STEPS
from influencerai.settings import Settings
from influencerai.train.runs.run import Run
from influencerai.train.trainer import Trainer
from tools.attribute_classifier import AttributeClassifier, load_classifier, measured_accuracy, through_autoencoder
from tools.render_characters import CLASS_WORD, PICTURES, character_avatars, write_set
from tools.tiny_avatars.export import grid

COUNT = 64
ASKED = ("background", "mouth", "clothes")
"""Attributes of the prompt that are judged."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares in [0, 1] over a set of pictures."""

    identity: float
    identity_by_attribute: dict[str, float]
    asked: float
    asked_by_attribute: dict[str, float]


def new_scenes(character: str, count: int, seed: int = 1) -> list[Avatar]:
    """The character in scenes (mouth, eyes, clothes, background together) that are not in its sample set."""
    rng = random.Random(f"{seed}/scenes/{character}")
    known = {_scene(avatar) for avatar in character_avatars(character, PICTURES)}
    identity = dict(zip(IDENTITY, CHARACTERS[character], strict=True))
    scenes: list[Avatar] = []
    while len(scenes) < count:
        avatar = Avatar.random(rng).changed(**identity)
        if _scene(avatar) not in known:
            scenes.append(avatar)
    return scenes


def trigger_prompts(scenes: Sequence[Avatar], seed: int = 1) -> list[str]:
    """The prompt of a user: the trigger and the scene, without the character's attributes."""
    rng = random.Random(f"{seed}/prompts")
    return [compose(scene, CHANGING, rng, subject=f"{TRIGGER} {CLASS_WORD}").text for scene in scenes]


def described_prompts(scenes: Sequence[Avatar], seed: int = 1) -> list[str]:
    """The whole character and the scene in words, without the trigger."""
    rng = random.Random(f"{seed}/described")
    return [compose(scene, ALL, rng, subject=f"a {CLASS_WORD}").text for scene in scenes]


def sample(sampler: Sampler, prompts: Sequence[str], *, lora: Path | None) -> list[Image.Image]:
    """One picture per prompt as `influencerai sample` draws it, its noise seeded by its position."""
    return [sampler.draw([prompt], lora=lora, seed=number)[0][0] for number, prompt in enumerate(prompts)]


def judge(classifier: AttributeClassifier, pictures: Sequence[Image.Image], scenes: Sequence[Avatar]) -> Shares:
    """How many pictures show what their scene says."""
    read = classifier.read(pictures)
    right = {
        name: [row[name] == getattr(scene, name) for row, scene in zip(read, scenes, strict=True)]
        for name in ATTRIBUTES
    }
    whole = [all(row) for row in zip(*(right[name] for name in IDENTITY), strict=True)]
    asked = {name: _share(right[name]) for name in ASKED}
    return Shares(
        identity=_share(whole),
        identity_by_attribute={name: _share(right[name]) for name in IDENTITY},
        asked=sum(asked.values()) / len(asked),
        asked_by_attribute=asked,
    )


def decoys_taken_for(classifier: AttributeClassifier, character: str, count: int, model: Path) -> float:
    """Share of decoy pictures (one or two identity attributes changed) that the classifier takes for the character."""
    rng = random.Random(f"decoys/{character}")
    decoys = []
    for scene in new_scenes(character, count):
        changed = rng.sample(IDENTITY, rng.choice((1, 2)))
        others = {name: rng.choice([v for v in ATTRIBUTES[name] if v != getattr(scene, name)]) for name in changed}
        decoys.append(render(scene.changed(**others)))
    pixels = np.stack([np.asarray(decoy) for decoy in decoys])
    decoded = (through_autoencoder(pixels, model).permute(0, 2, 3, 1) * 127.5 + 127.5).byte().numpy()
    read = classifier.read([Image.fromarray(picture) for picture in decoded])
    return _share([tuple(row[name] for name in IDENTITY) == CHARACTERS[character] for row in read])


def train(character: str, work: Path) -> Run:
    """A LoRA of the character's sample set by the demo's spec; the set is drawn into `work` first."""
    write_set(character, work / "sets" / character)
    config = demo_config(name=character, output_path=f"loras/{character}")
    return Trainer(config, settings=Settings.load(root=work)).train(f"sets/{character}")


def figures_of(character: str, work: Path, model: Path, out: Path, *, lora: Path | None) -> dict[str, Any]:
    """Everything measured about one character; sheets of pictures go to `out`."""
    classifier = load_classifier(work, model=model)
    figures: dict[str, Any] = {"decoys_taken_for_the_character": decoys_taken_for(classifier, character, 200, model)}
    if lora is None:
        run = train(character, work)
        lora = run.lora_path
        figures["training_minutes"] = run.result.training_time_minutes
    scenes = new_scenes(character, COUNT)
    sampler = Sampler(MODEL_ID, settings=Settings.load(root=work))
    for name, prompts, file in (
        ("base", trigger_prompts(scenes), None),
        ("described", described_prompts(scenes), None),
        ("lora", trigger_prompts(scenes), lora),
    ):
        pictures = sample(sampler, prompts, lora=file)
        figures[name] = asdict(judge(classifier, pictures, scenes))
        grid(pictures, 16).quantize(128).save(out / f"quality_{character}_{name}.png", optimize=True)
    return figures


def table(figures: dict[str, dict[str, Any]]) -> str:
    """The report as a Markdown table."""
    rows = [
        "| character | pictures from | whole identity | asked for (background, mouth, clothes) |",
        "|---|---|---|---|",
    ]
    for character, measured in figures.items():
        for name, title in (("base", "base alone"), ("described", "base, described in words"), ("lora", "LoRA")):
            shares = measured[name]
            rows.append(f"| {character} | {title} | {shares['identity']:.0%} | {shares['asked']:.0%} |")
    decoys = max(measured["decoys_taken_for_the_character"] for measured in figures.values())
    return "\n".join([*rows, "", f"{COUNT} pictures each; decoys taken for the character: at most {decoys:.1%}."])


def main() -> None:
    """Measure base, ceiling and LoRA of some characters; write figures and sheets of pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("data/quality"), help="for the classifier and the LoRAs")
    parser.add_argument("--characters", nargs="+", choices=sorted(CHARACTERS), default=["ava", "leo"])
    parser.add_argument("--lora", type=Path, help="judge this file, for one character, instead of training")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if arguments.lora and len(arguments.characters) != 1:
        parser.error("--lora goes with one character")
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures = {
        character: figures_of(character, arguments.work, model_path(), arguments.out, lora=arguments.lora)
        for character in arguments.characters
    }
    config = {**demo_config().to_wire(), "sampler_steps": DEFAULT_STEPS, "guidance": DEFAULT_GUIDANCE}
    accuracy = measured_accuracy(arguments.work)
    worst = min(min(shares.values()) for shares in accuracy.values())
    text = f"{table(figures)}\n\nThe classifier reads every attribute of held-out renders right in {worst:.1%} or more."
    write_report(arguments.out, "quality", config=config, figures={**figures, "classifier": accuracy}, text=text)


def _scene(avatar: Avatar) -> tuple[str, ...]:
    return tuple(getattr(avatar, name) for name in sorted(CHANGING))


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


if __name__ == "__main__":
    main()
