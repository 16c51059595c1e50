"""SD1.5 and SDXL against diffusers' own pipelines, on small models with random weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from influencerai.basemodel.components import CONFIGS
from influencerai.domain import ModelSpec
from influencerai.domain.training_options import PredictionType
from influencerai.models.families.sd15 import StableDiffusion15
from influencerai.models.families.sdxl import StableDiffusionXL
from influencerai.models.family import Family, Geometry, load_family
from influencerai.models.loadable_model import LoadableModel, find_loadable_model
from tests.small_models import small_sd15, small_sdxl

CPU = torch.device("cpu")
CAPTIONS = ["ohwx woman, smiling", "", "a photo of the man with red glasses " * 30]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadableModel]:
    root = tmp_path_factory.mktemp("models")
    small_sd15(root / "sd15")
    small_sdxl(root / "sdxl")
    return {name: find_loadable_model(str(root / name), models_dirs=[]) for name in ("sd15", "sdxl")}


@pytest.fixture(params=["sd15", "sdxl"])
def base(request: pytest.FixtureRequest, models: dict[str, LoadableModel]) -> LoadableModel:
    return models[request.param]


@pytest.fixture
def family(base: LoadableModel) -> Family:
    return _family(base.family)


def test_registered() -> None:
    assert isinstance(load_family("sd15"), StableDiffusion15)
    assert isinstance(load_family("sdxl"), StableDiffusionXL)


@pytest.mark.slow
def test_image_encoder(base: LoadableModel, family: Family) -> None:
    pixels = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = family.load_image_encoder(base, device=CPU)(pixels)
    factor, scale = (8, 0.18215) if family.name == "sd15" else (4, 0.13025)
    assert mean.shape == std.shape == (4, 48 // factor, 64 // factor)
    assert mean.dtype == std.dtype == torch.float32
    with torch.no_grad():
        posterior = base.load("vae").encode(pixels[None]).latent_dist
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    expected = posterior.sample(torch.Generator().manual_seed(1))[0] * scale
    torch.testing.assert_close(mean + std * noise, expected)


def test_a_vae_with_a_shift(models: dict[str, LoadableModel], tmp_path: Path) -> None:
    folder = shutil.copytree(models["sd15"].path, tmp_path / "shifted")
    _edit(folder / "vae/config.json", shift_factor=0.5)
    pixels = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, shifted = (
        StableDiffusion15().load_image_encoder(model, device=CPU)(pixels)
        for model in (models["sd15"], find_loadable_model(str(folder), models_dirs=[]))
    )
    torch.testing.assert_close(shifted[0], plain[0] - 0.5 * 0.18215)
    torch.testing.assert_close(shifted[1], plain[1])


@pytest.mark.slow
def test_conditioning_is_the_pipelines(base: LoadableModel, family: Family) -> None:
    conditioner = family.load_conditioner(base, device=CPU, dtype=torch.float32)
    pipeline = family.pipeline(base, device=CPU, dtype=torch.float32)
    tokens = conditioner.tokenize(CAPTIONS)
    assert {name: ids.shape for name, ids in tokens.items()} == dict.fromkeys(family.text_components, (3, 77))
    with torch.no_grad():
        found = conditioner(tokens)
        encoded = pipeline.encode_prompt(
            CAPTIONS, device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    expected = {"prompt_embeds": encoded[0]}
    if family.name == "sdxl":
        expected["pooled_prompt_embeds"] = encoded[2]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_a_short_tokenizer_decides_the_length(models: dict[str, LoadableModel], tmp_path: Path) -> None:
    folder = shutil.copytree(models["sd15"].path, tmp_path / "short")
    _edit(folder / "tokenizer/tokenizer_config.json", model_max_length=32)
    short = find_loadable_model(str(folder), models_dirs=[])
    conditioner = StableDiffusion15().load_conditioner(short, device=CPU, dtype=torch.float32)
    assert conditioner.tokenize(CAPTIONS)["text_encoder"].shape == (3, 32)
    _edit(folder / "tokenizer/tokenizer_config.json", model_max_length=10**30)
    endless = StableDiffusion15().load_conditioner(short, device=CPU, dtype=torch.float32)
    assert endless.tokenize(CAPTIONS)["text_encoder"].shape == (3, 77)


def test_text_encoders_are_frozen_but_differentiable(base: LoadableModel, family: Family) -> None:
    conditioner = family.load_conditioner(base, device=CPU, dtype=torch.float32)
    components = conditioner.components()
    assert tuple(components) == family.text_components
    for module in components.values():
        assert not any(parameter.requires_grad for parameter in module.parameters())
        first = next(parameter for name, parameter in module.named_parameters() if "q_proj" in name)
        first.requires_grad_(True)
        prompt_embeds = conditioner(conditioner.tokenize(CAPTIONS))["prompt_embeds"]
        prompt_embeds.square().sum().backward()
        assert first.grad is not None
        assert first.grad.abs().sum() > 0


@pytest.mark.slow
def test_denoise_is_the_pipelines_call(base: LoadableModel, family: Family) -> None:
    """What the pipeline's UNet answers to one of its own calls, non-square and with every size different."""
    calls: list[tuple[tuple[Any, ...], Tensor]] = []
    unet: Any = family.load_denoiser(base, device=CPU, dtype=torch.float32)
    hook = unet.register_forward_hook(lambda _, args, out: calls.append((args, out[0])))
    pipeline = family.pipeline(base, device=CPU, dtype=torch.float32, unet=unet)
    sizes = {"original_size": (300, 200), "crops_coords_top_left": (10, 20), "target_size": (64, 96)}
    pipeline(
        CAPTIONS[0],
        height=64,
        width=96,
        num_inference_steps=2,
        guidance_scale=1.0,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
        **(sizes if family.name == "sdxl" else {}),
    )
    hook.remove()
    conditioner = family.load_conditioner(base, device=CPU, dtype=torch.float32)
    height, width, *_ = (torch.tensor([pair]) for pair in sizes.values())
    geometry = Geometry(original=height, crop=width, target=torch.tensor([sizes["target_size"]]))
    with torch.no_grad():
        conditioning = conditioner(conditioner.tokenize(CAPTIONS[:1]))
        for (noisy, timestep), expected in calls:
            found = family.denoise(unet, noisy, timestep.long()[None], conditioning, geometry)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(calls) == 2


def test_sizes_reach_sdxl_exactly_in_bfloat16(models: dict[str, LoadableModel]) -> None:
    """1023 is 1024 in bfloat16; the sizes are kept in float32 for the embedding."""
    family, base = StableDiffusionXL(), models["sdxl"]
    unet = family.load_denoiser(base, device=CPU, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 4, 8, 8, generator=generator)
    conditioning = {
        "prompt_embeds": torch.randn(1, 77, 96, generator=generator),
        "pooled_prompt_embeds": torch.randn(1, 48, generator=generator),
    }
    seen: list[Tensor] = []
    unet.get_submodule("add_time_proj").register_forward_hook(lambda _, args, out: seen.append(args[0]))
    odd = torch.tensor([[1023, 1021]])
    with torch.no_grad():
        out = family.denoise(
            unet, noisy, torch.tensor([500]), conditioning, Geometry(original=odd, crop=odd, target=odd)
        )
    assert seen[0].tolist() == [1023, 1021] * 3
    assert (out.shape, out.dtype) == (noisy.shape, torch.bfloat16)


def test_side_multiple(base: LoadableModel, family: Family) -> None:
    assert family.side_multiple(base) == {"sd15": 8 * 2, "sdxl": 4 * 4}[family.name]
    full_size = dataclasses.replace(base, configs=CONFIGS / family.name)
    assert family.side_multiple(full_size) == {"sd15": 64, "sdxl": 32}[family.name]


def test_objective_follows_the_spec(base: LoadableModel, family: Family) -> None:
    latents, noise = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    last = torch.tensor([999])
    v = family.objective(base, _spec(base, "v_prediction", zero_terminal_snr=True), device=CPU)
    assert torch.equal(v.target(latents, noise, last), -latents)
    epsilon = family.objective(base, _spec(base, "epsilon", zero_terminal_snr=False), device=CPU)
    assert torch.equal(epsilon.target(latents, noise, last), noise)


def test_lora_targets_and_keys(base: LoadableModel, family: Family) -> None:
    conditioner = family.load_conditioner(base, device=CPU, dtype=torch.float32)
    components = {"unet": family.empty_denoiser(base), **conditioner.components()}
    keys = []
    for name, module in components.items():
        paths = family.lora_targets(name, module, "transformer")
        assert paths
        for path in paths:
            assert isinstance(module.get_submodule(path), nn.Linear | nn.Conv2d)
        keys += [family.kohya_key(name, path) for path in paths]
    assert len(set(keys)) == len(keys)
    prefixes = {key.split("_")[0] + "_" + key.split("_")[1] for key in keys}
    assert prefixes == {"lora_unet"} | ({"lora_te"} if family.name == "sd15" else {"lora_te1", "lora_te2"})


@pytest.mark.slow
def test_full_size_counts() -> None:
    """What sd-scripts trains by default: 192 modules of SD1.5's UNet, 722 of SDXL's."""
    for name, count in (("sd15", 192), ("sdxl", 722)):
        family = _family(name)
        base = LoadableModel(
            name=name,
            path=CONFIGS / name,
            layout="diffusers",
            family=name,
            prediction_type="epsilon",
            zero_terminal_snr=False,
            configs=CONFIGS / name,
        )
        unet = family.empty_denoiser(base)
        assert all(parameter.is_meta for parameter in unet.parameters())
        assert len(family.lora_targets("unet", unet, "transformer")) == count


def test_gradient_checkpointing_changes_no_gradient(models: dict[str, LoadableModel]) -> None:
    family, base = StableDiffusion15(), models["sd15"]
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 4, 8, 8, generator=generator)
    conditioning = {"prompt_embeds": torch.randn(1, 77, 32, generator=generator)}
    size = torch.tensor([[64, 64]])
    gradients = []
    for checkpointing in (False, True):
        unet: Any = family.load_denoiser(base, device=CPU, dtype=torch.float32)
        assert not any(parameter.requires_grad for parameter in unet.parameters())
        if checkpointing:
            family.enable_gradient_checkpointing(unet)
            assert unet.is_gradient_checkpointing
        weight = unet.mid_block.attentions[0].proj_in.weight.requires_grad_(True)
        assert not unet.training, "as real runs have it"
        geometry = Geometry(original=size, crop=size, target=size)
        family.denoise(unet, noisy, torch.tensor([10]), conditioning, geometry).sum().backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.slow
def test_pipeline_draws(base: LoadableModel, family: Family) -> None:
    unet = family.load_denoiser(base, device=CPU, dtype=torch.float32)
    pipeline = family.pipeline(base, device=CPU, dtype=torch.float32, unet=unet)
    assert pipeline.unet is unet
    assert getattr(pipeline, "safety_checker", None) is None
    assert getattr(pipeline, "watermark", None) is None
    images = _draw(pipeline)
    assert [image.size for image in images] == [(64, 48)]
    assert np.asarray(images[0]).std() > 1


@pytest.mark.slow
def test_pipeline_in_bfloat16_decodes_in_float32(base: LoadableModel, family: Family) -> None:
    """SDXL's VAE overflows in half precision, also when a caller has turned autocast on."""
    pipeline = family.pipeline(base, device=CPU, dtype=torch.bfloat16)
    assert pipeline.unet.dtype == torch.bfloat16
    inputs: list[torch.dtype] = []
    pipeline.vae.decoder.conv_out.register_forward_hook(lambda _, args, out: inputs.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        image = _draw(pipeline)[0]
    assert inputs == [torch.float32]
    assert image.size == (64, 48)


@pytest.mark.parametrize(
    ("prediction_type", "zero_terminal_snr", "limit"),
    [("epsilon", False, 0.045), ("v_prediction", False, 0.045), ("v_prediction", True, 0.11)],
)
@pytest.mark.parametrize("steps", [10, 25])
def test_sampler_follows_a_perfect_denoiser(
    models: dict[str, LoadableModel],
    prediction_type: PredictionType,
    zero_terminal_snr: bool,
    limit: float,
    steps: int,
) -> None:
    """For data of mean 0.7 and deviation 0.5 the best prediction is known, and leads noise z to 0.7 + 0.5 z."""
    changes: dict[str, Any] = {"prediction_type": prediction_type, "zero_terminal_snr": zero_terminal_snr}
    scheduler = load_family("sd15").sampling_scheduler(dataclasses.replace(models["sd15"], **changes))
    scheduler.set_timesteps(steps)
    start = torch.randn(500, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    x = start * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        noisy = scheduler.scale_model_input(x, timestep)
        level = scheduler.alphas_cumprod[timestep]
        alpha, sigma = level.sqrt(), (1 - level).sqrt()
        clean = 0.7 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (noisy - alpha * 0.7)
        noise = (noisy - alpha * clean) / sigma
        prediction = noise if prediction_type == "epsilon" else alpha * noise - sigma * clean
        x = scheduler.step(prediction, timestep, x).prev_sample
    assert (x - (0.7 + 0.5 * start)).square().mean().sqrt() < limit


def _family(name: str) -> Family:
    families: dict[str, Family] = {"sd15": StableDiffusion15(), "sdxl": StableDiffusionXL()}
    return families[name]


def _spec(base: LoadableModel, prediction_type: PredictionType, *, zero_terminal_snr: bool) -> ModelSpec:
    return ModelSpec(
        name=base.name,
        family=base.family,
        fingerprint="",
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
    )


def _draw(pipeline: Any) -> list[Any]:
    images: list[Any] = pipeline(
        "ohwx woman",
        height=48,
        width=64,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
    ).images
    return images


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
