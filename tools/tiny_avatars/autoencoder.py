"""Stage 1: the autoencoder, 128x128 pictures to 16x16x4 latents and back."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from tools.tiny_avatars import team
from tools.tiny_avatars.muon import MatrixAndOther
from tools.tiny_avatars.stage import Stage, State, rate, step_generator

CROP_STEPS = 720
"""Steps on 64x64 crops: every step sees parts of 12 pictures for the price of 3."""
CROP_BATCH = 12
CROP_GRID = 8
"""Crops start at multiples of this, one latent: the drawings lie alike, so each part keeps its place in the grid."""
WHOLE_STEPS = 90
"""Steps on whole pictures afterwards: group normalisation has to meet its real statistics."""
WHOLE_BATCH = 4
KL_WEIGHT = 5e-5
EDGE_WEIGHT = 0.5
"""Of the L1 of gradients at the end; it grows from 0, as flat areas come first."""
HELD_BACK = 64
"""Pictures at the end of the dataset that no training step sees; PSNR is measured on them."""


def build_autoencoder() -> AutoencoderKL:
    """1.8 M parameters. No attention in the middle block, so that crops and whole pictures are treated alike."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 48, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
    )
    # Start almost without posterior noise, else the first hundred steps only learn to shrink it.
    assert model.quant_conv is not None
    with torch.no_grad():
        model.quant_conv.weight[4:] *= 0.1
        assert model.quant_conv.bias is not None
        model.quant_conv.bias[4:] = -6.0
    return model


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [batch, height, width, 3] to float [batch, 3, height, width] in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train_autoencoder(folder: Path, seed: int) -> None:
    """Train on the pictures in `folder` as a member of a team; goes on where an earlier run stopped."""
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    torch.manual_seed(seed)
    model = build_autoencoder()
    parameters = list(model.parameters())
    optimizer = MatrixAndOther(model)
    stage = Stage("autoencoder", folder)
    first = 0
    if state := stage.resume():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    steps = CROP_STEPS + WHOLE_STEPS

    def snapshot() -> State:
        return {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}

    for step in range(first, steps):
        images = _batch(pixels, step, step_generator(seed, step))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(images).latent_dist
            latents = posterior.sample(step_generator(seed, step, purpose=1 + team.rank()))
            decoded = model.decode(latents).sample
        edge_weight = EDGE_WEIGHT * min(1.0, step / CROP_STEPS)
        loss = reconstruction_loss(decoded.float(), images, edge_weight)
        loss = loss + KL_WEIGHT * _kl(posterior.mean, posterior.logvar)
        loss.backward()
        team.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(rate(step, steps=steps, warmup=30))
        if (step + 1) % 50 == 0:
            stage.log(step + 1, loss=loss.item(), psnr_batch=psnr(decoded.detach().float(), images))
        stage.save_if_due(snapshot)
    if first < steps and team.rank() == 0:
        model.register_to_config(scaling_factor=_scaling_factor(model, pixels))
        held_back = to_tensor(pixels[-HELD_BACK:])
        quality = psnr(reconstruct(model, held_back), held_back)
        stage.log(steps, psnr_held_back=quality)
        step = steps - 1
        stage.save({**snapshot(), "scaling_factor": model.config.scaling_factor, "psnr": quality})


def load_autoencoder(folder: Path) -> tuple[AutoencoderKL, float]:
    """The trained autoencoder with its `scaling_factor`, and its PSNR in dB on pictures held back."""
    state = Stage("autoencoder", folder).resume()
    if state is None or "psnr" not in state:
        raise SystemExit(f"the autoencoder in {folder} is not trained to the end")
    model = build_autoencoder()
    model.load_state_dict(state["model"])
    model.register_to_config(scaling_factor=state["scaling_factor"])
    return model.eval(), state["psnr"]


@torch.no_grad()
def encode_all(model: AutoencoderKL, pixels: NDArray[np.uint8], folder: Path) -> Tensor:
    """Scaled posterior means of all pictures, float32 [count, 4, 16, 16]; encoded once, then read from disk."""
    path = folder / "latents.npy"
    if not path.exists():
        batches = []
        for start in range(0, len(pixels), 32):
            with torch.autocast("cpu", torch.bfloat16):
                batches.append(model.encode(to_tensor(pixels[start : start + 32])).latent_dist.mean.float())
        np.save(path, (torch.cat(batches) * model.config.scaling_factor).numpy())
    return torch.from_numpy(np.load(path))


@torch.no_grad()
def reconstruct(model: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode (posterior mean) and decode, both in fp32."""
    decoded: Tensor = model.decode(model.encode(images).latent_dist.mean).sample
    return decoded


def psnr(decoded: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, over the mean squared error of all pictures together, in [0, 1] scale."""
    error = (decoded.clamp(-1, 1) - images).square().mean() / 4.0
    return float(-10.0 * torch.log10(error))


def _batch(pixels: NDArray[np.uint8], step: int, generator: torch.Generator) -> Tensor:
    size = pixels.shape[1]
    whole = step >= CROP_STEPS
    count = WHOLE_BATCH if whole else CROP_BATCH
    edge = size if whole else size // 2
    indices = torch.randint(len(pixels) - HELD_BACK, (count,), generator=generator).tolist()
    corners = torch.randint((size - edge) // CROP_GRID + 1, (count, 2), generator=generator) * CROP_GRID
    mine = slice(team.rank(), None, team.size())
    indices, corners = indices[mine], corners[mine]
    crops = [pixels[i, y : y + edge, x : x + edge] for i, (y, x) in zip(indices, corners.tolist(), strict=True)]
    return to_tensor(np.stack(crops))


def reconstruction_loss(decoded: Tensor, images: Tensor, edge_weight: float) -> Tensor:
    """L1 + L2 + the L1 of both gradients: line drawings live by their edges."""
    edges = sum(F.l1_loss(decoded.diff(dim=axis), images.diff(dim=axis)) for axis in (2, 3))
    return F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + edge_weight * edges


def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


@torch.no_grad()
def _scaling_factor(model: AutoencoderKL, pixels: NDArray[np.uint8]) -> float:
    """The factor that scales the latents of 512 pictures to unit variance."""
    means = [model.encode(to_tensor(pixels[start : start + 32])).latent_dist.mean for start in range(0, 512, 32)]
    return round(1.0 / float(torch.cat(means).std()), 5)
