"""Sampling: pictures of prompts, each from noise of its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image

from influencerai.generate.picture_record import LoraUse, ModelIdentity, PictureRecord, sampler_name
from influencerai.models.draws import normal

DEFAULT_STEPS = 25
DEFAULT_GUIDANCE = 5.0


def draw(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    size: int,
    steps: int = DEFAULT_STEPS,
    guidance: float = DEFAULT_GUIDANCE,
    negative_prompt: str = "",
    model: ModelIdentity,
    lora: LoraUse | None = None,
    epoch: int | None = None,
) -> list[Image]:
    """One picture per prompt, each from the noise of its own seed, so that the batch does not change it.

    `model`, `lora` and `epoch` only go into the records that the pictures carry.
    """
    factor = pipeline.vae_scale_factor
    side = size // factor
    channels = pipeline.unet.config.in_channels
    noise = torch.stack([normal((channels, side, side), seed, "sample") for seed in seeds])
    with torch.no_grad():
        images: list[Image] = pipeline(
            list(prompts),
            negative_prompt=[negative_prompt] * len(prompts),
            latents=noise.to(device=pipeline.device, dtype=pipeline.unet.dtype),
            height=side * factor,
            width=side * factor,
            num_inference_steps=steps,
            guidance_scale=guidance,
        ).images
    for prompt, seed, image in zip(prompts, seeds, images, strict=True):
        record = PictureRecord(
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            steps=steps,
            sampler=sampler_name(pipeline.scheduler),
            guidance=guidance,
            width=image.width,
            height=image.height,
            model=model,
            lora=lora,
            epoch=epoch,
        )
        record.attach(image)
    return images
