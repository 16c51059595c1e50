"""Stage 5: the decoder alone, from the latents that the UNet learned, towards sharper pictures.

The encoder is frozen once latents are written, so this can run after the UNet or beside it: no latent changes.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from tools.tiny_avatars import team
from tools.tiny_avatars.autoencoder import (
    EDGE_WEIGHT,
    HELD_BACK,
    load_autoencoder,
    psnr,
    reconstruct,
    reconstruction_loss,
    to_tensor,
)
from tools.tiny_avatars.muon import MatrixAndOther
from tools.tiny_avatars.stage import Stage, State, rate, step_generator

STEPS = 700
BATCH = 8
PEAK_SHARE = 0.5
"""Of the peak rates: the decoder is trained already."""
LATENT_NOISE = 0.03
"""Standard deviation, in units of the latents': what a UNet draws is never exactly what the encoder would have."""


def train_decoder(folder: Path, seed: int) -> None:
    """Train on latents and pictures of `folder` as a member of a team; goes on where an earlier run stopped."""
    torch.manual_seed(seed)
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    latents = torch.from_numpy(np.load(folder / "latents.npy"))
    model, _ = load_autoencoder(folder)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = MatrixAndOther(model)
    stage = Stage("decoder", folder)
    first = 0
    if state := stage.resume():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    def snapshot() -> State:
        return {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}

    for step in range(first, STEPS):
        generator = step_generator(seed, step, purpose=team.rank())
        chosen = torch.randint(len(latents), (BATCH // team.size(),), generator=generator)
        clean = latents[chosen]
        noisy = clean + LATENT_NOISE * torch.randn(clean.shape, generator=generator)
        images = to_tensor(pixels[chosen.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            decoded = model.decode(noisy / model.config.scaling_factor).sample
        loss = reconstruction_loss(decoded.float(), images, EDGE_WEIGHT)
        loss.backward()
        team.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(PEAK_SHARE * rate(step, steps=STEPS, warmup=30))
        if (step + 1) % 50 == 0:
            stage.log(step + 1, loss=loss.item(), psnr_batch=psnr(decoded.detach().float(), images))
        stage.save_if_due(snapshot)
    if first < STEPS and team.rank() == 0:
        step = STEPS - 1
        held_back = to_tensor(pixels[-HELD_BACK:])
        quality = psnr(reconstruct(model, held_back), held_back)
        stage.log(STEPS, psnr_held_back=quality)
        stage.save({**snapshot(), "psnr": quality})


def load_finished_autoencoder(folder: Path) -> tuple[AutoencoderKL, float]:
    """The autoencoder with this stage's decoder if it is trained to the end, and its PSNR in dB."""
    model, quality = load_autoencoder(folder)
    state = Stage("decoder", folder).resume()
    if state is not None and "psnr" in state:
        model.load_state_dict(state["model"])
        quality = state["psnr"]
    return model.eval(), quality
