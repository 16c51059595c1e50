"""Encode once: every image and caption that a run will need, through the cache, before the denoiser is loaded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from influencerai.dataset.folder import read_file
from influencerai.dataset.image_file import MAX_FILE_BYTES, load_rgb
from influencerai.domain import Event, ExecutionPlan, SampleSpec, StageEvent, TrainingSpec
from influencerai.errors import DatasetError
from influencerai.models.draws import SampleDraws
from influencerai.models.family import Conditioning, Family, Geometry, ImageEncoder, TextConditioner
from influencerai.models.loadable_model import LoadableModel
from influencerai.models.precision import dtype_of
from influencerai.train.data.cache import TensorCache
from influencerai.training_plan import TrainingPlan

Emit = Callable[[Event], None]
PREPROCESSING = "lanczos-1"
"""Name of how an image becomes pixels; part of every cache key, so change it with the code."""


@dataclass(frozen=True)
class Latents:
    """Posterior of one image: float32 [channels, height, width] each, in the denoiser's scale, on the CPU."""

    mean: Tensor
    std: Tensor


def needed_variants(spec: TrainingSpec, plan: TrainingPlan) -> tuple[set[tuple[int, bool]], set[str]]:
    """Every (sample, flipped) and every caption text that the run will meet, enumerated from its seed."""
    images = {(index, False) for index in plan.validation}
    captions = {spec.samples[index].caption for index in plan.validation}
    for step in range(plan.total_steps):
        for batch in plan.step(step).batches:
            for ref in batch:
                draws = SampleDraws(spec.options, step, ref)
                images.add((ref.sample, draws.flip))
                captions.add(draws.caption(spec.samples[ref.sample].caption))
    return images, captions


def encode_images(
    spec: TrainingSpec,
    variants: Iterable[tuple[int, bool]],
    *,
    plan: TrainingPlan,
    dataset_dir: Path,
    base: LoadableModel,
    family: Family,
    cache: TensorCache,
    max_pixels: int,
    emit: Emit,
) -> dict[tuple[int, bool], Latents]:
    """Latents of every (sample, flipped); only what the cache lacks is encoded.

    Raises:
        DatasetError: an image has changed since the spec was made, or cannot be read.
    """
    wanted = sorted(variants)
    device = torch.device(spec.plan.device)
    encoder: ImageEncoder | None = None
    fingerprint = base.fingerprint("vae")
    found: dict[tuple[int, bool], Latents] = {}
    for done, (index, flipped) in enumerate(wanted):
        emit(StageEvent(stage="encoding images", done=done, total=len(wanted)))
        sample = spec.samples[index]
        crop = plan.crop(index)
        key = TensorCache.key(
            kind="latents",
            image=sample.sha256,
            preprocessing=[PREPROCESSING, crop.resized, crop.box, flipped],
            encoder=fingerprint,
            execution=_execution(spec.plan, "fp32"),
        )
        entry = cache.get(key)
        if entry is None:
            pixels = load_pixels(dataset_dir, sample, crop.resized, crop.box, max_pixels=max_pixels)
            if encoder is None:
                encoder = family.load_image_encoder(base, device=device)
            with torch.no_grad():
                mean, std = encoder(pixels.flip(-1) if flipped else pixels)
            entry = {"mean": mean, "std": std}
            cache.put(key, entry)
        found[index, flipped] = Latents(entry["mean"], entry["std"])
    emit(StageEvent(stage="encoding images", done=len(wanted), total=len(wanted)))
    return found


def encode_captions(
    spec: TrainingSpec,
    captions: Iterable[str],
    *,
    base: LoadableModel,
    family: Family,
    cache: TensorCache,
    emit: Emit,
) -> dict[str, Conditioning]:
    """Conditioning of every caption, without the batch axis, in the run's precision, on the CPU."""
    wanted = sorted(captions)
    conditioner: TextConditioner | None = None
    found: dict[str, Conditioning] = {}
    dtype = dtype_of(spec.plan.precision)
    device = torch.device(spec.plan.device)
    fingerprints = [base.fingerprint(name) for name in family.text_components]
    for done, caption in enumerate(wanted):
        emit(StageEvent(stage="encoding captions", done=done, total=len(wanted)))
        key = TensorCache.key(
            kind="conditioning",
            caption=caption,
            encoder=fingerprints,
            family=family.name,
            execution=_execution(spec.plan, spec.plan.precision),
        )
        entry = cache.get(key)
        if entry is None:
            if conditioner is None:
                conditioner = family.load_conditioner(base, device=device, dtype=dtype)
            entry = encode_caption(conditioner, caption, device=device)
            cache.put(key, entry)
        found[caption] = entry
    emit(StageEvent(stage="encoding captions", done=len(wanted), total=len(wanted)))
    return found


def encode_caption(conditioner: TextConditioner, caption: str, *, device: torch.device) -> Conditioning:
    """Conditioning of one caption, without the batch axis, on the CPU."""
    tokens = {name: ids.to(device) for name, ids in conditioner.tokenize([caption]).items()}
    with torch.no_grad():
        return {name: tensor[0].cpu() for name, tensor in conditioner(tokens).items()}


def load_pixels(
    dataset_dir: Path,
    sample: SampleSpec,
    resized: tuple[int, int],
    box: tuple[int, int, int, int],
    *,
    max_pixels: int,
) -> Tensor:
    """One image as float32 [3, height, width] in -1..1, resized to `resized` (width, height) and cut to `box`.

    Raises:
        DatasetError: the file's bytes are not those of the spec, or no image.
    """
    path = dataset_dir / sample.path
    try:
        # The inspection decided whether links are followed; the hash tells that this is the file that it read.
        data = read_file(path, limit=MAX_FILE_BYTES)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error.message}", remedy=error.remedy) from error
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        raise DatasetError(f"{path} has changed since this run was made.", remedy="Start a new run.")
    image = load_rgb(io.BytesIO(data), name=str(path), max_pixels=max_pixels)
    image = image.resize(resized, Image.Resampling.LANCZOS).crop(box)
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def geometry(spec: TrainingSpec, plan: TrainingPlan, indices: Iterable[int]) -> Geometry:
    """Sizes of the samples, as the denoiser's size conditioning wants them."""
    rows = [(spec.samples[index], plan.crop(index)) for index in indices]
    return Geometry(
        original=torch.tensor([(sample.height, sample.width) for sample, _ in rows]),
        crop=torch.tensor([(crop.box[1], crop.box[0]) for _, crop in rows]),
        target=torch.tensor([(crop.box[3] - crop.box[1], crop.box[2] - crop.box[0]) for _, crop in rows]),
    )


def _execution(plan: ExecutionPlan, precision: str) -> list[object]:
    """What changes the last bits of an encoder's output: an entry made elsewhere must not be met on resuming."""
    return [torch.__version__, plan.device_name, plan.threads, precision]
