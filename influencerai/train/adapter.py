"""Adapter: LoRA (arXiv:2106.09685) on named modules, injected with PEFT and taken out without a trace."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import peft  # never `from peft import LoraConfig`: that name is the contract's noun here
import torch
from torch import Tensor, nn

from influencerai.errors import CheckpointError

_NAME = "default"
"""PEFT's name of the one adapter that a layer carries."""


@dataclass(frozen=True)
class LoraWeights:
    """Weights of one adapted module, which add `alpha / rank * up @ down` to its own.

    Linear: down [rank, in], up [out, rank]. Conv2d: down [rank, in, height, width], up [out, rank, 1, 1].
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True)
class _Layer:
    base: nn.Module
    down: nn.Parameter
    up: nn.Parameter


class Adapter:
    """LoRA on modules of several components, for as long as it is not ejected.

    The components are frozen; what trains is float32 whatever their dtype is, and starts as a pure function
    of (seed, component, path): down as PEFT and sd-scripts draw it (Kaiming-uniform, a = sqrt 5), up zero.

    `autocast` promises that every forward pass, sampling included, runs under `torch.autocast`. Then adapted
    layers take their input as it is; without it PEFT casts it to float32 first, which keeps a float32 copy of
    every input for the backward pass and changes no gradient.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        *,
        targets: Mapping[str, Sequence[str]],
        rank: int,
        alpha: float,
        seed: int,
        autocast: bool = False,
    ) -> None:
        """Inject. `targets` holds the paths of Linear and Conv2d modules inside each component."""
        assert targets.keys() <= components.keys(), "targets name a component that is not there"
        self.components = dict(components)
        self._alpha = float(alpha)
        self._trainable = {
            id(parameter): parameter.requires_grad
            for module in components.values()
            for parameter in module.parameters()
        }
        self._layers: dict[tuple[str, str], _Layer] = {}
        for component, module in self.components.items():
            module.requires_grad_(False)
            if targets.get(component):
                self._inject(component, targets[component], rank=rank, seed=seed, autocast=autocast)

    def parameters(self, component: str | None = None) -> Iterator[nn.Parameter]:
        """What trains, of one component or of all, in the order of `tensors()`."""
        for (owner, _), layer in self._layers.items():
            if component in (None, owner):
                yield layer.down
                yield layer.up

    def tensors(self) -> dict[str, Tensor]:
        """The weights by `<component>.<path>.lora_down` and `.lora_up`, detached, in the adapter's memory."""
        found = {}
        for (component, path), layer in self._layers.items():
            found[f"{component}.{path}.lora_down"] = layer.down.detach()
            found[f"{component}.{path}.lora_up"] = layer.up.detach()
        return found

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set every weight in place.

        Raises:
            CheckpointError: `tensors` is not of this adapter's names and shapes.
        """
        held = self.tensors()
        here = {name: tuple(tensor.shape) for name, tensor in held.items()}
        there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                raise CheckpointError(
                    f"The saved weights do not fit this adapter: '{name}' is {there.get(name, 'missing')} "
                    f"there, {here.get(name, 'missing')} here.",
                    remedy="Resume with the configuration that the run was started with.",
                )
        for name, tensor in tensors.items():
            held[name].copy_(tensor)

    def weights(self) -> dict[tuple[str, str], LoraWeights]:
        """Copies on the CPU in float32, by (component, path)."""
        return {
            key: LoraWeights(
                down=layer.down.detach().clone().cpu(),
                up=layer.up.detach().clone().cpu(),
                alpha=self._alpha,
            )
            for key, layer in self._layers.items()
        }

    @contextmanager
    def swapped(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Hold other weights, such as an average, during a block; then the present ones, bit for bit."""
        held = {name: tensor.clone() for name, tensor in self.tensors().items()}
        self.load_tensors(tensors)
        try:
            yield
        finally:
            self.load_tensors(held)

    def eject(self) -> None:
        """Leave the components in the state from before the injection."""
        for (component, path), layer in self._layers.items():
            parent, _, name = path.rpartition(".")
            setattr(self.components[component].get_submodule(parent), name, layer.base)
        for component in {component for component, _ in self._layers}:
            delattr(self.components[component], "peft_config")
        self._layers.clear()
        for module in self.components.values():
            for parameter in module.parameters():
                parameter.requires_grad_(self._trainable[id(parameter)])

    def _inject(self, component: str, paths: Sequence[str], *, rank: int, seed: int, autocast: bool) -> None:
        module = self.components[component]
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=self._alpha,
            # A list would also match paths that only end like one of these.
            target_modules="|".join(re.escape(path) for path in paths),
        )
        # Without low_cpu_mem_usage PEFT draws weights from the global generator, to be overwritten here.
        peft.inject_adapter_in_model(config, module, adapter_name=_NAME, low_cpu_mem_usage=True)
        for path in paths:
            wrapped: Any = module.get_submodule(path)
            assert isinstance(wrapped, peft.tuners.lora.LoraLayer), path
            base: Any = wrapped.get_base_layer()
            device = base.weight.device
            down: Any = wrapped.lora_A[_NAME]
            up: Any = wrapped.lora_B[_NAME]
            down.weight = nn.Parameter(_initial_down(down.weight.shape, seed, component, path).to(device))
            up.weight = nn.Parameter(torch.zeros(up.weight.shape, dtype=torch.float32, device=device))
            wrapped.cast_input_dtype_enabled = not autocast
            self._layers[component, path] = _Layer(base=base, down=down.weight, up=up.weight)


def _initial_down(shape: torch.Size, seed: int, component: str, path: str) -> Tensor:
    key = hashlib.blake2b(f"{seed}\x1flora\x1f{component}\x1f{path}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
    weight = torch.empty(shape, dtype=torch.float32)
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
