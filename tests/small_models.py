"""Real diffusers folders with random weights: the shapes of SD1.5 and SDXL with few channels.

Block counts are those that loaders rely on (SDXL: three blocks of two layers); SDXL's VAE shrinks by 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

_WORDS = ["ohwx", "woman", "man", "smiling", "photo", "of", "portrait", "red", "background", "glasses", "the"]
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def small_tokenizer(*, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's byte-pair encoding, with merges that make each of a dozen words one token."""
    alphabet = _byte_alphabet()
    merges: dict[tuple[str, str], None] = {}
    for word in _WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges[parts[0], parts[1]] = None
            parts[:2] = [parts[0] + parts[1]]
    tokens = [
        *alphabet,
        *(letter + "</w>" for letter in alphabet),
        *("".join(pair) for pair in merges),
        *_SPECIAL,
    ]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=list(merges), pad_token=pad_token, model_max_length=77)


def small_sd15(folder: Path, *, seed: int = 0) -> Path:
    """Save an SD1.5 pipeline: a UNet of (32, 64) channels, a VAE that shrinks by 8, one text encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = small_tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=_vae((8, 8, 16, 16), scaling_factor=0.18215),
            text_encoder=CLIPTextModel(_text_config(tokenizer, hidden_act="quick_gelu")),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=16,
                block_out_channels=(32, 64),
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                layers_per_block=2,
                cross_attention_dim=32,
                attention_head_dim=4,
                norm_num_groups=8,
            ),
            scheduler=PNDMScheduler(**_NOISE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def small_sdxl(folder: Path, *, seed: int = 0) -> Path:
    """Save an SDXL pipeline: a UNet of (32, 64, 64) channels, a VAE that shrinks by 4, two text encoders."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, tokenizer_2 = small_tokenizer(), small_tokenizer(pad_token="!")
        pipeline = StableDiffusionXLPipeline(
            vae=_vae((8, 8, 16), scaling_factor=0.13025),
            text_encoder=CLIPTextModel(_text_config(tokenizer, hidden_act="quick_gelu", projection_dim=32)),
            text_encoder_2=CLIPTextModelWithProjection(
                _text_config(tokenizer_2, hidden_act="gelu", hidden_size=64, intermediate_size=128, projection_dim=48)
            ),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            unet=UNet2DConditionModel(
                sample_size=32,
                block_out_channels=(32, 64, 64),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                layers_per_block=2,
                transformer_layers_per_block=(1, 1, 2),
                cross_attention_dim=32 + 64,
                attention_head_dim=(2, 4, 4),
                norm_num_groups=8,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 48,
            ),
            scheduler=EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading", steps_offset=1),
            add_watermarker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def _vae(channels: tuple[int, ...], *, scaling_factor: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=scaling_factor,
    )


def _text_config(tokenizer: CLIPTokenizer, **changes: Any) -> CLIPTextConfig:
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(**settings | changes)


def _byte_alphabet() -> list[str]:
    """The 256 letters that byte-level encodings write bytes with (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]
