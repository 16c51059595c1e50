"""Reads the drawn attributes off a picture: the judge of what the models draw.

A small convolutional network with one head per attribute, trained on renders, on renders that went through the
autoencoder, and on jittered versions of both. Trained in a few minutes; its weights stay outside of git.

    python -m tools.attribute_classifier --work ~/classifier
"""

import argparse
import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_model, save_file
from torch import Tensor, nn

from influencerai.demo.avatars import ATTRIBUTES, OPAQUE_GLASSES
from influencerai.demo.characters import model_path
from tools.tiny_avatars.autoencoder import to_tensor
from tools.tiny_avatars.dataset import attribute_indices, load_dataset
from tools.tiny_avatars.muon import MatrixAndOther
from tools.tiny_avatars.stage import rate

FILE = "classifier.safetensors"
PICTURES = 6000
HELD_OUT = 500
"""Renders at the end of the dataset that training never sees."""
DECODED = 1000
"""Renders at the start that training sees also as the autoencoder gives them back."""
SEED = 20261122
STEPS = 900
BATCH = 48
IGNORED = -100
"""Label of eyes behind opaque glasses."""


class AttributeClassifier(nn.Module):
    """Logits per attribute from pictures [batch, 3, 128, 128] in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for inside, outside in pairwise(channels):
            layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.GroupNorm(8, outside), nn.SiLU()]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(128 * 8 * 8, 192), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(192, len(values)) for values in ATTRIBUTES.values())

    def forward(self, pictures: Tensor) -> list[Tensor]:
        features = self.features(pictures)
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        """The value of every attribute in each picture."""
        pixels = np.stack([np.asarray(picture.convert("RGB").resize((128, 128))) for picture in pictures])
        guesses = [logits.argmax(-1).tolist() for logits in self.eval()(to_tensor(pixels))]
        return [
            {name: values[guess] for (name, values), guess in zip(ATTRIBUTES.items(), row, strict=True)}
            for row in zip(*guesses, strict=True)
        ]


def load_classifier(work: Path, *, model: Path | None = None) -> AttributeClassifier:
    """The classifier of `work`, trained first if it is not there; `model` holds the autoencoder it has to see."""
    path = work / FILE
    classifier = AttributeClassifier()
    if not path.exists():
        model = model or model_path()
        train_classifier(classifier, work, model)
        save_file(classifier.state_dict(), path, {"held_out": json.dumps(held_out_accuracy(classifier, work, model))})
    load_model(classifier, path)
    return classifier.eval()


def measured_accuracy(work: Path) -> dict[str, dict[str, float]]:
    """Of the classifier in `work`: share of right values on held-out pictures, by kind of picture and attribute."""
    with safe_open(work / FILE, framework="pt") as file:
        found: dict[str, dict[str, float]] = json.loads(file.metadata()["held_out"])
    return found


def train_classifier(classifier: AttributeClassifier, work: Path, model: Path) -> None:
    """Train in place."""
    torch.manual_seed(SEED)
    dataset = load_dataset(work, count=PICTURES, seed=SEED)
    labels = torch.tensor([_labels(attribute_indices(avatar)) for avatar in dataset.avatars])
    decoded = through_autoencoder(dataset.pixels[:DECODED], model)
    optimizer = MatrixAndOther(classifier)
    for step in range(STEPS):
        rng = random.Random(f"{SEED}/{step}")
        chosen = [rng.randrange(PICTURES - HELD_OUT) for _ in range(BATCH - BATCH // 3)]
        seen_decoded = [rng.randrange(DECODED) for _ in range(BATCH // 3)]
        pictures = torch.cat([to_tensor(dataset.pixels[chosen]), decoded[seen_decoded]])
        targets = labels[chosen + seen_decoded]
        with torch.autocast("cpu", torch.bfloat16):
            logits = classifier(_jitter(pictures, rng))
        losses = [F.cross_entropy(logit.float(), targets[:, n], ignore_index=IGNORED) for n, logit in enumerate(logits)]
        loss = torch.stack(losses).sum()
        loss.backward()
        optimizer.step(rate(step, steps=STEPS, warmup=30))
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)


def held_out_accuracy(classifier: AttributeClassifier, work: Path, model: Path) -> dict[str, dict[str, float]]:
    """Accuracy on renders that it was not trained on, plain and through the autoencoder."""
    dataset = load_dataset(work, count=PICTURES, seed=SEED)
    pixels = dataset.pixels[-HELD_OUT:]
    labels = torch.tensor([_labels(attribute_indices(avatar)) for avatar in dataset.avatars[-HELD_OUT:]])
    return {
        "renders": accuracy(classifier, to_tensor(pixels), labels),
        "renders through the autoencoder": accuracy(classifier, through_autoencoder(pixels, model), labels),
    }


@torch.no_grad()
def accuracy(classifier: AttributeClassifier, pictures: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right values per attribute, ignored labels left out."""
    classifier.eval()
    parts = [classifier(part) for part in pictures.split(64)]
    shares = {}
    for number, name in enumerate(ATTRIBUTES):
        guesses = torch.cat([part[number].argmax(-1) for part in parts])
        known = labels[:, number] != IGNORED
        shares[name] = (guesses == labels[:, number])[known].float().mean().item()
    classifier.train()
    return shares


@torch.no_grad()
def through_autoencoder(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], model: Path) -> Tensor:
    """Pictures [count, 3, 128, 128] as the autoencoder of `model` gives them back, with a little latent noise."""
    from diffusers import AutoencoderKL

    autoencoder = AutoencoderKL.from_pretrained(model, subfolder="vae")
    generator = torch.Generator().manual_seed(SEED)
    parts = []
    for start in range(0, len(pixels), 16):
        with torch.autocast("cpu", torch.bfloat16):
            latents = autoencoder.encode(to_tensor(pixels[start : start + 16])).latent_dist.mean.float()
            noise = 0.05 * torch.randn(latents.shape, generator=generator) / autoencoder.config.scaling_factor
            parts.append(autoencoder.decode(latents + noise).sample.float().clamp(-1, 1))
    return torch.cat(parts)


def _labels(indices: list[int]) -> list[int]:
    """Indices with the eyes ignored where opaque glasses hide them."""
    row = dict(zip(ATTRIBUTES, indices, strict=True))
    if ATTRIBUTES["glasses"][row["glasses"]] in OPAQUE_GLASSES:
        row["eyes"] = IGNORED
    return list(row.values())


def _jitter(pictures: Tensor, rng: random.Random) -> Tensor:
    """Degrade a picture as generation does: soft edges, slightly wrong colours, noise, a shift by a pixel."""
    dx, dy = rng.randint(-2, 2), rng.randint(-2, 2)
    pictures = F.pad(pictures, (2, 2, 2, 2), mode="replicate")[:, :, 2 + dy : 130 + dy, 2 + dx : 130 + dx]
    if rng.random() < 0.5:
        soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        pictures = pictures.lerp(soft, rng.random())
    count = len(pictures)
    gain = 1 + 0.06 * torch.randn(count, 3, 1, 1)
    offset = 0.04 * torch.randn(count, 3, 1, 1)
    return pictures * gain + offset + 0.03 * torch.randn_like(pictures)


def main() -> None:
    """Train if needed, and report the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures and weights")
    parser.add_argument("--model", type=Path, default=model_path())
    arguments = parser.parse_args()
    load_classifier(arguments.work, model=arguments.model)
    for kind, shares in measured_accuracy(arguments.work).items():
        print(f"{kind}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
