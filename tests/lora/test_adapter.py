from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from influencerai.errors import CheckpointError
from influencerai.lora.adapter import Adapter
from influencerai.models.lora_targets import text_encoder_targets, unet_targets
from tests.small_models import small_sd15

Components = dict[str, nn.Module]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("models") / "sd15")


@pytest.fixture
def components(folder: Path) -> Components:
    return {
        "unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        "text_encoder": CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
    }


def inject(components: Components, **changes: Any) -> Adapter:
    settings: dict[str, Any] = {"rank": 4, "alpha": 2.5, "seed": 7}
    return Adapter(
        components,
        targets={
            "unet": unet_targets(components["unet"], "all"),
            "text_encoder": text_encoder_targets(components["text_encoder"], "all"),
        },
        **settings | changes,
    )


def outputs(components: Components) -> tuple[Tensor, Tensor]:
    dtype = components["unet"].get_parameter("conv_in.weight").dtype
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=generator).to(dtype)
    text = components["text_encoder"](torch.arange(1, 21).view(2, 10))[0]
    return components["unet"](latents, torch.tensor([10, 500]), text).sample, text


def train(adapter: Adapter) -> None:
    """Give every weight a value that a training could have given it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


def initial_digest() -> str:
    layers = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(30, 20, 3))
    adapter = Adapter({"unet": layers}, targets={"unet": ["0", "1"]}, rank=8, alpha=8, seed=7)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in adapter.tensors().values())).hexdigest()


def state(components: Components) -> Iterator[tuple[str, object]]:
    """Everything that an injection could leave behind."""
    for component, root in components.items():
        yield f"{component} attributes", sorted(vars(root))
        for path, module in root.named_modules():
            yield f"{component}.{path}", (id(module), type(module), module.training, list(module._modules))
        for path, parameter in root.named_parameters():
            yield f"{component}.{path} trains", (parameter.requires_grad, id(parameter))


class TestInjection:
    def test_changes_nothing_before_training(self, components: Components) -> None:
        before = outputs(components)
        inject(components)
        after = outputs(components)
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True]

    def test_adapts_exactly_the_named_modules(self, components: Components) -> None:
        paths = unet_targets(components["unet"], "transformer")[3:5]
        adapter = Adapter(components, targets={"unet": paths}, rank=4, alpha=4, seed=7)
        assert [path for _, path in adapter.weights()] == paths
        trained = {name for name, p in components["unet"].named_parameters() if p.requires_grad}
        assert {name.split(".lora_")[0] for name in trained} == set(paths)
        assert not any(p.requires_grad for p in components["text_encoder"].parameters())

    def test_only_the_adapter_trains_in_fp32(self, components: Components) -> None:
        for module in components.values():
            module.to(torch.bfloat16)
        adapter = inject(components)
        trained = [p for module in components.values() for p in module.parameters() if p.requires_grad]
        assert {id(p) for p in trained} == {id(p) for p in adapter.parameters()}
        assert {p.dtype for p in trained} == {torch.float32}
        assert components["unet"].get_parameter("conv_in.weight").dtype == torch.bfloat16

    def test_adds_alpha_over_rank_times_up_times_down(self, components: Components) -> None:
        unet = components["unet"]
        adapter = inject(components)
        train(adapter)
        adapted = outputs(components)
        weights = adapter.weights()
        adapter.eject()
        for (component, path), lora in weights.items():
            module: Any = components[component].get_submodule(path)
            change = lora.up.flatten(1) @ lora.down.flatten(1) * (2.5 / 4)
            module.weight.data += change.view_as(module.weight)
        assert any(isinstance(unet.get_submodule(path), nn.Conv2d) for _, path in weights)
        for ours, merged in zip(adapted, outputs(components), strict=True):
            torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-5)

    def test_text_encoder_of_a_pipeline_sees_the_adapter(self, folder: Path) -> None:
        pipeline: Any = StableDiffusionPipeline.from_pretrained(folder)
        tokens = torch.arange(1, 11).view(1, 10)
        before = pipeline.text_encoder(tokens)[0]
        train(inject({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}))
        assert not torch.equal(before, pipeline.text_encoder(tokens)[0])


class TestInitialWeights:
    def test_are_bounded_as_peft_bounds_them_and_up_is_zero(self, components: Components) -> None:
        for lora in inject(components).weights().values():
            bound = lora.down.flatten(1).shape[1] ** -0.5
            assert 0.5 * bound < lora.down.abs().max() <= bound
            assert not lora.up.any()

    def test_depend_on_seed_component_and_path_alone(self, components: Components) -> None:
        adapter = inject(components)
        first = adapter.tensors()
        adapter.eject()
        torch.manual_seed(99)
        path = unet_targets(components["unet"], "attention")[5]
        alone = Adapter(components, targets={"unet": [path]}, rank=4, alpha=2.5, seed=7).tensors()
        assert torch.equal(alone[f"unet.{path}.lora_down"], first[f"unet.{path}.lora_down"])
        downs = {tuple(t.flatten().tolist()) for name, t in first.items() if name.endswith("down")}
        assert len(downs) == len(first) // 2

    def test_another_seed_gives_others(self, components: Components) -> None:
        adapter = inject(components)
        first = adapter.tensors()
        adapter.eject()
        second = inject(components, seed=8).tensors()
        assert not any(torch.equal(first[name], second[name]) for name in first if name.endswith("down"))

    def test_no_global_generator_is_read_or_moved(self, components: Components) -> None:
        before = torch.get_rng_state()
        inject(components)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.campaign
    def test_are_the_same_in_another_process_with_one_thread(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__]
        printed = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
        assert printed.split()[-1] == initial_digest()


class TestEject:
    def test_leaves_the_components_as_before(self, components: Components) -> None:
        components["unet"].eval()
        components["unet"].get_parameter("conv_in.weight").requires_grad_(False)
        before, drawn = dict(state(components)), outputs(components)
        adapter = inject(components)
        train(adapter)
        assert dict(state(components)) != before
        adapter.eject()
        assert dict(state(components)) == before
        assert [torch.equal(a, b) for a, b in zip(drawn, outputs(components), strict=True)] == [True, True]

    def test_makes_room_for_another(self, components: Components) -> None:
        inject(components, rank=2).eject()
        adapter = inject(components, rank=3)
        assert {lora.rank for lora in adapter.weights().values()} == {3}


class TestTensors:
    def test_names_and_order(self, components: Components) -> None:
        first = unet_targets(components["unet"], "all")[0]
        adapter = inject(components)
        names = list(adapter.tensors())
        assert names[:2] == [f"unet.{first}.lora_down", f"unet.{first}.lora_up"]
        for tensor, parameter in zip(adapter.tensors().values(), adapter.parameters(), strict=True):
            assert tensor.data_ptr() == parameter.data_ptr()
        of_text = sum(name.startswith("text_encoder.") for name in names)
        assert len(list(adapter.parameters("text_encoder"))) == of_text > 0

    def test_loading_sets_the_same_parameters(self, components: Components) -> None:
        adapter = inject(components)
        start = {name: tensor.clone() for name, tensor in adapter.tensors().items()}
        parameters = [id(parameter) for parameter in adapter.parameters()]
        train(adapter)
        adapter.load_tensors(start)
        assert all(torch.equal(adapter.tensors()[name], start[name]) for name in start)
        assert [id(parameter) for parameter in adapter.parameters()] == parameters

    @pytest.mark.parametrize("fault", ["missing", "left over", "other shape"])
    def test_what_does_not_fit_is_named_and_changes_nothing(self, components: Components, fault: str) -> None:
        adapter = inject(components)
        tensors = {name: tensor + 1 for name, tensor in adapter.tensors().items()}
        held = {name: tensor.clone() for name, tensor in adapter.tensors().items()}
        name = list(tensors)[-1]
        if fault == "missing":
            del tensors[name]
        elif fault == "left over":
            name = "vae.decoder.lora_up"
            tensors[name] = torch.zeros(1)
        else:
            tensors[name] = tensors[name][:1]
        with pytest.raises(CheckpointError, match=name):
            adapter.load_tensors(tensors)
        assert all(torch.equal(adapter.tensors()[key], held[key]) for key in held)

    def test_swapped_weights_act_inside_the_block_only(self, components: Components) -> None:
        adapter = inject(components)
        zeros = {name: torch.zeros_like(tensor) for name, tensor in adapter.tensors().items()}
        before = outputs(components)[0]
        train(adapter)
        trained = outputs(components)[0]
        with contextlib.suppress(KeyboardInterrupt), adapter.swapped(zeros):
            assert torch.equal(outputs(components)[0], before)
            raise KeyboardInterrupt
        assert torch.equal(outputs(components)[0], trained)

    def test_weights_are_copies(self, components: Components) -> None:
        adapter = inject(components)
        weights = adapter.weights()
        train(adapter)
        assert not any(lora.up.any() for lora in weights.values())
        assert {lora.alpha for lora in weights.values()} == {2.5}


if __name__ == "__main__":
    print(initial_digest())  # noqa: T201  # what the test of another process reads
