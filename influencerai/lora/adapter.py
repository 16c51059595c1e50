"""Adapter: LoRA (arXiv:2106.09685) on named modules, put in and taken out without a trace."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from influencerai.errors import CheckpointError
from influencerai.lora.layer import LoraLayer


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


class Adapter:
    """LoRA on modules of several components, for as long as it is not ejected.

    The components are frozen; what trains is float32 whatever their dtype is, and starts as a pure function
    of (seed, component, path): down as PEFT and sd-scripts draw it (Kaiming-uniform, a = sqrt 5), up zero.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        *,
        targets: Mapping[str, Sequence[str]],
        rank: int,
        alpha: float,
        seed: int,
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
        self._layers: dict[tuple[str, str], LoraLayer] = {}
        for component, module in self.components.items():
            module.requires_grad_(False)
            for path in targets.get(component, ()):
                self._inject(component, path, rank=rank, seed=seed)

    def parameters(self, component: str | None = None) -> Iterator[nn.Parameter]:
        """The trainable parameters, of one component or of all, in the order of `tensors()`."""
        for (owner, _), layer in self._layers.items():
            if component in (None, owner):
                yield layer.lora_down
                yield layer.lora_up

    def tensors(self) -> dict[str, Tensor]:
        """The weights by `<component>.<path>.lora_down` and `.lora_up`, detached, in the adapter's memory."""
        found = {}
        for (component, path), layer in self._layers.items():
            found[f"{component}.{path}.lora_down"] = layer.lora_down.detach()
            found[f"{component}.{path}.lora_up"] = layer.lora_up.detach()
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
                down=layer.lora_down.detach().to("cpu", copy=True),
                up=layer.lora_up.detach().to("cpu", copy=True),
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
            _replace(self.components[component], path, layer.base)
        self._layers.clear()
        for module in self.components.values():
            for parameter in module.parameters():
                parameter.requires_grad_(self._trainable[id(parameter)])

    def _inject(self, component: str, path: str, *, rank: int, seed: int) -> None:
        module = self.components[component]
        base = module.get_submodule(path)
        assert isinstance(base, nn.Linear | nn.Conv2d), path
        rows, *columns = base.weight.shape
        up_shape = (rows, rank, 1, 1) if isinstance(base, nn.Conv2d) else (rows, rank)
        down = _initial_down(torch.Size((rank, *columns)), seed, component, path)
        layer = LoraLayer(
            base,
            down=down.to(base.weight.device),
            up=torch.zeros(up_shape, dtype=torch.float32, device=base.weight.device),
            scale=self._alpha / rank,
        )
        layer.train(base.training)
        _replace(module, path, layer)
        self._layers[component, path] = layer


def _replace(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


def _initial_down(shape: torch.Size, seed: int, component: str, path: str) -> Tensor:
    key = hashlib.blake2b(f"{seed}\x1flora\x1f{component}\x1f{path}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
    weight = torch.empty(shape, dtype=torch.float32)
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
