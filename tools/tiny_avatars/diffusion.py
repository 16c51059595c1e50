"""Stage 4: the UNet and the text encoder, trained together to predict the noise in latents."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from influencerai.demo.captions import random_caption
from tools.tiny_avatars import team
from tools.tiny_avatars.dataset import drawn_avatar
from tools.tiny_avatars.muon import MatrixAndOther
from tools.tiny_avatars.stage import Stage, State, cosine, step_generator
from tools.tiny_avatars.text import HIDDEN, build_text_encoder, load_text_encoder, tokenize

BATCH = 32
TEXT_RATE = 0.1
"""Of the peak rates: the text encoder already reads; a full rate would shake what the UNet builds on."""
WARMUP = 60
CAPTION_DROPOUT = 0.1
MIN_SNR_GAMMA = 5.0
EMA_DECAY = 0.998


def build_unet() -> UNet2DConditionModel:
    """8.9 M parameters: SD1.5's blocks, three levels, one layer per block."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        cross_attention_dim=HIDDEN,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Linear betas up to 0.02: at t=999 0.6% of the picture's amplitude is left.

    SD1.5's scaled_linear leaves 6.8%, by which the model would read flat backgrounds off the "noise" and ignore the
    prompt's colour. DPM-Solver++ because PNDM, SD1.5's sampler, draws blotches here: it extrapolates the predicted
    noise, whose error the small amplitudes of the first steps blow up.
    """
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear",
        prediction_type="epsilon", steps_offset=1, timestep_spacing="leading",
        lambda_min_clipped=-100.0,  # The default, -Infinity, is not JSON.
    )  # fmt: skip


class Average:
    """Exponential moving average of parameters; the decay grows from 0 as (1 + n) / (10 + n)."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.shadow = [parameter.detach().clone() for parameter in parameters]
        self.updates = 0

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor]) -> None:
        self.updates += 1
        decay = min(EMA_DECAY, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shadow, [parameter.detach() for parameter in parameters], 1 - decay)


def train_diffusion(folder: Path, seed: int, dataset_seed: int, minutes: float) -> None:
    """Train on the latents in `folder` as a member of a team; goes on where an earlier run stopped.

    The learning rate follows the clock, not the step: on a machine shared with other work nobody knows how many steps
    fit, and a schedule cut short before its end costs more quality than the missing steps.
    """
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    latents = torch.from_numpy(np.load(folder / "latents.npy"))
    avatars = [drawn_avatar(dataset_seed, index) for index in range(len(latents))]
    unet, text_encoder = build_unet(), load_text_encoder(tokenizer, folder)
    schedule = DDPMScheduler.from_config(build_scheduler().config)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    unet_optimizer, text_optimizer = MatrixAndOther(unet), MatrixAndOther(text_encoder)
    average = Average(parameters)
    stage = Stage("diffusion", folder, save_every_s=240.0)
    step, losses = 0, 0.0
    if state := stage.resume():
        unet.load_state_dict(state["unet"])
        text_encoder.load_state_dict(state["text_encoder"])
        unet_optimizer.load_state_dict(state["unet_optimizer"])
        text_optimizer.load_state_dict(state["text_optimizer"])
        average.shadow, average.updates = state["average"], state["step"]
        step = state["step"]

    def snapshot() -> State:
        return {"step": step, "unet": unet.state_dict(), "text_encoder": text_encoder.state_dict(),
                "unet_optimizer": unet_optimizer.state_dict(), "text_optimizer": text_optimizer.state_dict(),
                "average": average.shadow}  # fmt: skip

    while (progress := _agreed(stage.elapsed_s / 60 / minutes)) < 1.0:
        generator = step_generator(seed, step, purpose=team.rank())
        rng = random.Random(f"{seed}/diffusion/{step}/{team.rank()}")
        count = BATCH // team.size()
        chosen = torch.randint(len(avatars), (count,), generator=generator)
        captions = [
            "" if rng.random() < CAPTION_DROPOUT else random_caption(avatars[i], rng).text for i in chosen.tolist()
        ]
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(schedule.config.num_train_timesteps, (count,), generator=generator)
        noisy = schedule.add_noise(clean, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = text_encoder(tokenize(tokenizer, captions)).last_hidden_state
            predicted = unet(noisy, timesteps, hidden).sample
        errors = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        loss = (errors * _min_snr_weights(schedule.alphas_cumprod, timesteps)).mean()
        loss.backward()
        team.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        share = min((step + 1) / WARMUP, cosine(progress))
        unet_optimizer.step(share)
        text_optimizer.step(share * TEXT_RATE)
        average.update(parameters)
        losses += loss.item()
        step += 1
        if step % 50 == 0:
            stage.log(step, loss=losses / 50, progress=progress)
            losses = 0.0
        stage.save_if_due(snapshot)
    if team.rank() == 0:
        stage.save(snapshot())


def _agreed(progress: float) -> float:
    """The first member's value, so that all members use the same learning rate."""
    value = torch.tensor([progress if team.rank() == 0 else 0.0])
    team.add_up([value])
    return value.item()


def load_diffusion(tokenizer: CLIPTokenizer, folder: Path) -> tuple[UNet2DConditionModel, CLIPTextModel, int]:
    """The averaged UNet and text encoder of the last checkpoint, and its step."""
    state = Stage("diffusion", folder).resume()
    if state is None:
        raise SystemExit(f"there is no checkpoint of the UNet in {folder}")
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    with torch.no_grad():
        for parameter, shadow in zip([*unet.parameters(), *text_encoder.parameters()], state["average"], strict=True):
            parameter.copy_(shadow)
    return unet.eval(), text_encoder.eval(), state["step"]


def _min_snr_weights(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """min(SNR, gamma) / SNR, for a model that predicts the noise (Hang et al., 2023)."""
    kept = alphas_cumprod[timesteps]
    snr = kept / (1 - kept)
    return snr.clamp(max=MIN_SNR_GAMMA) / snr
