"""LoraLayer computes what PEFT's layers compute, in no more memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from influencerai.lora.layer import LoraLayer

RANK, ALPHA = 4, 6.0

BASES: dict[str, Any] = {
    "small linear": (lambda: nn.Linear(24, 40), (2, 5, 24)),
    "small linear without bias": (lambda: nn.Linear(24, 40, bias=False), (2, 5, 24)),
    "large linear": (lambda: nn.Linear(256, 320), (2, 5, 256)),
    "large linear without bias": (lambda: nn.Linear(256, 320, bias=False), (7, 256)),
    "small 1x1 convolution": (lambda: nn.Conv2d(24, 40, 1), (2, 24, 6, 6)),
    "small 3x3 convolution": (lambda: nn.Conv2d(8, 16, 3, padding=1, stride=2), (2, 8, 6, 6)),
    "large 3x3 convolution": (lambda: nn.Conv2d(64, 160, 3, padding=1, stride=2), (2, 64, 6, 6)),
}


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_output_and_gradients_are_those_of_peft(name: str, dtype: torch.dtype, autocast: bool) -> None:
    base, x = make_base(name, dtype), make_input(name)
    x = x if autocast else x.to(dtype)
    ours, theirs = make_layer(base), make_peft_layer(base)
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        got, wanted = run(ours, x), run(theirs, x)
    lowest = torch.bfloat16 if autocast else dtype
    rtol, atol = (1e-5, 1e-5) if lowest == torch.float32 else (0.05, 0.08)
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol)
    gradients = [ours.lora_down.grad, ours.lora_up.grad]
    expected = [theirs.lora_A["default"].weight.grad, theirs.lora_B["default"].weight.grad]
    for gradient, reference in zip(gradients, expected, strict=True):
        assert gradient is not None
        assert gradient.dtype == torch.float32
        error = (gradient - reference).norm() / reference.norm()
        assert error < (1e-5 if lowest == torch.float32 else 0.02)


@pytest.mark.parametrize("name", BASES)
def test_lower_precision_is_as_near_to_float32_as_peft_is(name: str) -> None:
    """A LoRA rounded into a bf16 weight would be lost; kept apart it is as exact as PEFT's."""
    base, x = make_base(name, torch.float32), make_input(name)
    base.weight.data = base.weight.data.bfloat16().float()
    ours = make_layer(base)
    ours.lora_up.data *= 1e-2
    with torch.no_grad():
        wanted = ours(x) - base(x)
        base.to(torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer = make_peft_layer(base)
            layer.lora_B["default"].weight.data *= 1e-2
            got, peft_got = ours(x), layer(x)
            plain = base(x.bfloat16())
    error = ((got - plain).float() - wanted).norm()
    assert error < 1.1 * ((peft_got - plain).float() - wanted).norm()


@pytest.mark.parametrize("name", BASES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    base, x = make_base(name, torch.float32), make_input(name)
    base.double()
    layer = make_layer(base).double()
    probes = torch.randn(3, generator=torch.Generator().manual_seed(3)).double()

    def loss(down: Tensor, up: Tensor, x: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(layer, {"lora_down": down, "lora_up": up}, (x,))
        return (output.flatten()[:3] * probes).sum() + output.square().mean()

    inputs = (layer.lora_down, layer.lora_up, x.double().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_checkpointing_changes_nothing(name: str) -> None:
    layer, x = make_layer(make_base(name, torch.float32)), make_input(name)
    run(layer, x)
    plain = [parameter.grad for parameter in (layer.lora_down, layer.lora_up)]
    layer.zero_grad()
    output = checkpoint(layer, x, use_reentrant=False)
    assert isinstance(output, Tensor)
    output.square().sum().backward()
    for parameter, gradient in zip((layer.lora_down, layer.lora_up), plain, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.equal(parameter.grad, gradient)


def test_an_input_without_gradient_gets_none() -> None:
    layer, x = make_layer(make_base("large linear", torch.float32)), make_input("large linear")
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.lora_down.grad is not None


@pytest.mark.parametrize("name", [name for name in BASES if name.startswith("large linear")])
def test_keeps_no_more_than_peft_for_the_backward_pass(name: str) -> None:
    base, x = make_base(name, torch.bfloat16), make_input(name).bfloat16().requires_grad_()
    kept = {}
    for layer in (make_layer(base), make_peft_layer(base)):
        tensors: dict[int, int] = {}

        def keep(tensor: Tensor, tensors: dict[int, int] = tensors) -> Tensor:
            tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16),
        ):
            layer(x).sum()
        kept[type(layer)] = sum(tensors.values())
    assert kept[LoraLayer] <= min(size for kind, size in kept.items() if kind is not LoraLayer)


def make_base(name: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    return BASES[name][0]().to(dtype).requires_grad_(False)


def make_input(name: str) -> Tensor:
    return torch.randn(BASES[name][1], generator=torch.Generator().manual_seed(1))


def weights_for(base: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    rows, *columns = base.weight.shape
    ones = (1, 1) if isinstance(base, nn.Conv2d) else ()
    return (
        torch.randn(RANK, *columns, generator=generator) * 0.1,
        torch.randn(rows, RANK, *ones, generator=generator) * 0.1,
    )


def make_layer(base: Any) -> LoraLayer:
    down, up = weights_for(base)
    return LoraLayer(base, down=down, up=up, scale=ALPHA / RANK)


def make_peft_layer(base: Any) -> Any:
    model = nn.Sequential(base)
    config = peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=["0"])
    peft.inject_adapter_in_model(config, model)
    layer: Any = model[0]
    layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = weights_for(base)
    return layer


def run(layer: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = layer(x)
    output.float().square().sum().backward()
    return output.detach()
