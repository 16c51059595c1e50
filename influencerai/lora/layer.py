"""LoraLayer: a frozen Linear or Conv2d that trains a LoRA (arXiv:2106.09685) beside its weight.

Written here because it is the inner loop of training: PEFT's layers scale and add activations, which costs
three passes over every output that this saves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST_MERGED = 100
"""Up to this in * out / (in + out), two products with the merged weight beat six with the LoRA's (measured, CPU)."""


class LoraLayer(nn.Module):
    """`base(x) + scale * up(down(x))`, where only `lora_down` and `lora_up` train, in float32.

    Shapes: Linear: lora_down [rank, in], lora_up [out, rank]; Conv2d: lora_down [rank, in, height, width],
    lora_up [out, rank, 1, 1]. The layer computes in autocast's dtype, else in its input's.

    A small layer in float32 adds the LoRA to its weight before the product, the same function with fewer
    kernels. In lower precision that would round small changes away, so they stay apart.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, *, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        assert not isinstance(base, nn.Conv2d) or base.groups == 1, "LoRA on a grouped convolution"
        self.base = base
        self.lora_down = nn.Parameter(down)
        self.lora_up = nn.Parameter(up)
        self.scale = scale
        rows, columns = base.weight.flatten(1).shape
        self._is_small = rows * columns <= _LARGEST_MERGED * (rows + columns)

    def forward(self, x: Tensor) -> Tensor:
        dtype = _compute_dtype(x)
        if self._is_small and dtype == self.base.weight.dtype == torch.float32:
            return self._merged(x)
        if isinstance(self.base, nn.Conv2d):
            return self._convolved(x, dtype)
        output: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
            x, self.base, self.lora_down, self.lora_up, self.scale, dtype
        )
        return output

    def _merged(self, x: Tensor) -> Tensor:
        base: Any = self.base
        weight = base.weight.flatten(1)
        weight = torch.addmm(weight, self.lora_up.flatten(1), self.lora_down.flatten(1), alpha=self.scale)
        if isinstance(base, nn.Conv2d):
            output: Tensor = base._conv_forward(x, weight.view_as(base.weight), base.bias)
            return output
        return functional.linear(x, weight, base.bias)

    def _convolved(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        base: Any = self.base
        down = base._conv_forward(x.to(dtype), self.lora_down.to(dtype), None)
        up = functional.conv2d(down, (self.lora_up * self.scale).to(dtype))
        output: Tensor = base(x)
        return output + up


class _LoraLinear(torch.autograd.Function):
    """The products of a Linear and its LoRA, accumulated in place; no gradient for the frozen weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base: nn.Linear, down: Tensor, up: Tensor, scale: float, dtype: torch.dtype
    ) -> Tensor:
        weight, down, up = base.weight.to(dtype), down.to(dtype), (up * scale).to(dtype)
        inputs = x.reshape(-1, x.shape[-1]).to(dtype)
        hidden = inputs @ down.t()
        bias = base.bias if base.bias is None else base.bias.to(dtype)
        outputs = functional.linear(inputs, weight, bias)
        outputs.addmm_(hidden, up.t())
        ctx.save_for_backward(inputs, hidden, weight, down, up)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, x.dtype
        return outputs.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, hidden, weight, down, up = ctx.saved_tensors
        of_outputs = gradients[0].reshape(-1, weight.shape[0])
        of_hidden = of_outputs @ up
        of_down = (of_hidden.t() @ inputs).float()
        of_up = (of_outputs.t() @ hidden).float() * ctx.scale
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (of_outputs @ weight).addmm_(of_hidden, down).view(ctx.shape).to(ctx.dtype)
        return of_x, None, of_down, of_up, None, None


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
