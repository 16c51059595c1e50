"""The result: a folder that `StableDiffusionPipeline.from_pretrained` loads, in fp16, and pictures to look at."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from tools.tiny_avatars.diffusion import build_scheduler


def assemble(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The pipeline of these parts, without safety checker."""
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(pipeline: StableDiffusionPipeline, tokenizer_folder: Path, folder: Path, *, card: str) -> None:
    """Write fp16 weights, configs and the model card to `folder`, replacing what was there."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(part, safe_serialization=True)
    # transformers would load the text encoder in the precision its config names, diffusers loads the rest in fp32.
    config = part / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    # The tokenizer as SD1.5 has it (vocab.json, merges.txt), which older versions of transformers read too.
    shutil.rmtree(part / "tokenizer")
    shutil.copytree(tokenizer_folder, part / "tokenizer")
    for path in part.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (part / "README.md").write_text(card)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


@torch.no_grad()
def sample_grid(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    columns: int = 8,
    steps: int = 20,
    guidance: float = 4.0,
) -> Image.Image:
    """One picture per prompt, noise seeded by its position."""
    generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    with torch.autocast("cpu", torch.bfloat16):
        pictures = pipeline(
            list(prompts), generator=generators, num_inference_steps=steps, guidance_scale=guidance
        ).images
    return grid(pictures, columns)


def grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size side by side, row by row."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    return sheet
