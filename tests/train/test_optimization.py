"""Optimization against the formulas, written out: what one step, an average and a validation compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.models.family import load_family
from influencerai.models.loadable_model import find_loadable_model
from influencerai.train.assembly import build, encode
from influencerai.train.optimization import Optimization
from influencerai.training_plan import TrainingPlan
from tests.small_models import small_sd15
from tests.training_runs import RunPlace, make_config, make_settings, make_spec, write_dataset

RATE = 0.01


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("models") / "sd15")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> RunPlace:
    root = tmp_path_factory.mktemp("loop")
    return RunPlace(root, dataset=write_dataset(root / "dataset"))


def config(model: Path, *, batch_size: int = 2, **meta: Any) -> LoraConfig:
    steady = {"lrScheduler": "constant", "warmupRatio": 0.0, "aspectRatioBuckets": False}
    return make_config(model, batchSize=batch_size, learningRate=RATE, meta=steady | meta)


def spec_of(config: LoraConfig, place: RunPlace) -> TrainingSpec:
    return make_spec(config, place.dataset, settings=make_settings(place.root))


def make_loop(spec: TrainingSpec, place: RunPlace) -> Optimization:
    base = find_loadable_model(spec.model.name, models_dirs=())
    family, plan = load_family(base.family), TrainingPlan(spec)
    data = encode(spec, plan, place.context(), base=base, family=family)
    return build(spec, plan, base=base, family=family, data=data)[0]


def weights(loop: Optimization) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in loop._adapter.tensors().items()}


@pytest.mark.slow
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_one_step_is_the_textbooks(sd15: Path, place: RunPlace, prediction_type: str) -> None:
    """Noise, min-SNR weights (arXiv:2303.09556, gamma/snr or gamma/(snr+1)), clipping and AdamW by hand."""
    spec = spec_of(config(sd15, predictionType=prediction_type, maxGradNorm=0.001), place)
    loop = make_loop(spec, place)
    before = weights(loop)
    batch = loop._data.training_batch(0, TrainingPlan(spec).step(0).batches[0])
    assert batch.conditioning is not None

    scheduler: Any = DDPMScheduler.from_pretrained(sd15, subfolder="scheduler", prediction_type=prediction_type)
    timesteps = (batch.timestep_draw * 1000).long()
    noisy = scheduler.add_noise(batch.latents, batch.noise, timesteps)
    is_epsilon = prediction_type == "epsilon"
    target = batch.noise if is_epsilon else scheduler.get_velocity(batch.latents, batch.noise, timesteps)
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=5.0) / (snr if is_epsilon else snr + 1)

    unet: Any = UNet2DConditionModel.from_pretrained(sd15, subfolder="unet")
    unet.requires_grad_(False)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in before.items()}
    merged = {}
    for name in (name.removesuffix(".lora_down") for name in leaves if name.endswith(".lora_down")):
        path = name.removeprefix("unet.") + ".weight"
        base = unet.get_parameter(path)
        change = leaves[f"{name}.lora_up"].flatten(1) @ leaves[f"{name}.lora_down"].flatten(1)
        merged[path] = base + 2 / 4 * change.view_as(base)
    prediction = torch.func.functional_call(
        unet, merged, (noisy, timesteps), {"encoder_hidden_states": batch.conditioning["prompt_embeds"]}
    ).sample
    loss = (weight * (prediction - target).square().mean((1, 2, 3))).mean()
    loss.backward()
    optimizer = torch.optim.AdamW(leaves.values(), lr=RATE, weight_decay=0.01)
    norm = torch.nn.utils.clip_grad_norm_(leaves.values(), 0.001)
    optimizer.step()

    outcome = loop.run_step()
    torch.testing.assert_close(outcome.loss, loss.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(outcome.grad_norm, norm, rtol=1e-4, atol=0)
    assert norm > 0.001, "clipping must have had something to do"
    assert outcome.learning_rate == RATE
    for name, tensor in weights(loop).items():
        torch.testing.assert_close(tensor, leaves[name].detach(), rtol=1e-3, atol=RATE / 50)


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch_even_where_the_last_is_smaller(sd15: Path, place: RunPlace) -> None:
    """Five images in batches of two, two and one."""
    accumulated = make_loop(spec_of(config(sd15, batch_size=2, gradientAccumulation=3), place), place)
    large = make_loop(spec_of(config(sd15, batch_size=5), place), place)
    for _ in range(2):
        ours, theirs = accumulated.run_step(), large.run_step()
        assert ours.images == theirs.images == 5
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-4, atol=0)
        torch.testing.assert_close(ours.grad_norm, theirs.grad_norm, rtol=1e-3, atol=0)


@pytest.mark.campaign
def test_micro_batches_change_nothing_but_rounding(sd15: Path, place: RunPlace) -> None:
    spec = spec_of(config(sd15, batch_size=4), place)
    split = spec.model_copy(update={"plan": spec.plan.model_copy(update={"micro_batch": 3})})
    ours, theirs = make_loop(split, place).run_step(), make_loop(spec, place).run_step()
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.grad_norm, theirs.grad_norm, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_the_exported_average_is_the_one_of_every_steps_weights(sd15: Path, place: RunPlace) -> None:
    """Decay min(emaDecay, (1 + n) / (10 + n)) at the n-th step after the first, which EMAModel starts from."""
    loop = make_loop(spec_of(config(sd15, ema=True, emaDecay=0.25), place), place)
    average = weights(loop)
    for number in range(4):
        loop.run_step()
        decay = min(0.25, (1 + number) / (10 + number)) if number else 0.0
        for name, tensor in weights(loop).items():
            average[name] = decay * average[name] + (1 - decay) * tensor
    trained = weights(loop)
    with loop.exported_weights():
        exported = weights(loop)
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-4, atol=1e-7)
    assert not all(torch.equal(exported[name], trained[name]) for name in trained)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in weights(loop).items())


@pytest.mark.slow
def test_the_text_encoder_has_a_rate_of_its_own(sd15: Path, place: RunPlace) -> None:
    loop = make_loop(spec_of(config(sd15, trainTextEncoder=True, textEncoderLearningRate=0.0), place), place)
    before = weights(loop)
    loop.run_step()
    changed = {name.split(".")[0] for name, tensor in weights(loop).items() if not torch.equal(tensor, before[name])}
    assert changed == {"unet"}
    halved = make_loop(spec_of(config(sd15, trainTextEncoder=True), place), place)
    assert [group["lr"] for group in halved._optimizer.param_groups] == [RATE, RATE / 2]


@pytest.mark.slow
def test_validation_is_the_same_at_every_call_and_with_every_batch_size(sd15: Path, place: RunPlace) -> None:
    loop = make_loop(spec_of(config(sd15, validationSplit=0.4), place), place)
    before = weights(loop)
    loss = loop.validation_loss()
    assert loop.validation_loss() == loss > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(loop).items())
    other = make_loop(spec_of(config(sd15, validationSplit=0.4, batch_size=3), place), place)
    assert other.validation_loss() == loss
    loop.run_step()
    assert loop.validation_loss() != loss
