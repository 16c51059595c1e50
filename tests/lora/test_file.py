"""Files of small real models, read by diffusers and compared with what the adapter did."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from influencerai.domain import ExecutionPlan, LoraConfig, ModelSpec, SampleSpec, TrainingSpec
from influencerai.domain.lora_layout import Layout
from influencerai.domain.training_options import PredictionType, TargetModules
from influencerai.errors import ExportError
from influencerai.files import atomic_file, safetensors_file
from influencerai.lora.adapter import Adapter, LoraWeights
from influencerai.lora.file import Weights, verify_lora, write_lora
from influencerai.models.families.sd15 import StableDiffusion15
from influencerai.models.families.sdxl import StableDiffusionXL
from influencerai.models.family import Family
from influencerai.training_plan import TrainingPlan
from tests.small_models import small_sd15, small_sdxl

RANK, ALPHA = 4, 2.5
FAMILIES: dict[str, Family] = {"sd15": StableDiffusion15(), "sdxl": StableDiffusionXL()}
BUILDERS: dict[str, Callable[[Path], Path]] = {"sd15": small_sd15, "sdxl": small_sdxl}
LAYOUTS: tuple[Layout, ...] = ("kohya", "diffusers")


def spec(family: str = "sd15", *, prediction_type: PredictionType = "epsilon") -> TrainingSpec:
    config = LoraConfig(
        name="Me at home",
        model_name="/home/somebody/models/dream.safetensors",
        network_dim=RANK,
        network_alpha=ALPHA,
        epochs=3,
        batch_size=2,
        meta={"targetModules": "all", "triggerWord": "ohwx woman"},
    )
    samples = (
        SampleSpec(path="a.png", sha256="a" * 64, width=512, height=512, caption="ohwx woman, smiling, ünïcode"),
        SampleSpec(path="b.png", sha256="b" * 64, width=512, height=512, caption="ohwx woman, red background"),
        SampleSpec(path="5_hat/c.png", sha256="c" * 64, width=768, height=384, caption="ohwx woman", repeats=5),
    )
    return TrainingSpec(
        config=config,
        options=config.options,
        model=ModelSpec(
            name=config.model_name,
            family=family,
            fingerprint="f" * 64,
            prediction_type=prediction_type,
            zero_terminal_snr=False,
        ),
        samples=samples,
        plan=ExecutionPlan(device="cpu", device_name="cpu", build="torch", threads=2, micro_batch=1, precision="fp32"),
        output_name="me",
        created_at=datetime(2026, 11, 22, 10, 30, tzinfo=UTC),
    )


def write(path: Path, weights: Weights, *, family: Family, layout: Layout = "kohya", **changes: Any) -> str:
    run = spec(family.name, **changes)
    return write_lora(path, weights, spec=run, plan=TrainingPlan(run), family=family, step=12, epoch=3, layout=layout)


def adapt(pipeline: Any, family: Family, targets: TargetModules) -> Adapter:
    """An adapter on every trainable component, with values that a training could have given it."""
    names = [name for name in ("unet", "text_encoder", "text_encoder_2") if name in pipeline.components]
    components = {name: getattr(pipeline, name) for name in names}
    paths = {name: family.lora_targets(name, module, targets) for name, module in components.items()}
    adapter = Adapter(components, targets=paths, rank=RANK, alpha=ALPHA, seed=7)
    generator = torch.Generator().manual_seed(1)
    for tensor in adapter.tensors().values():
        tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.05)
    return adapter


def outputs(pipeline: Any) -> list[Tensor]:
    """What every component makes of fixed inputs."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.arange(1, 21).view(2, 10)
    encoders = [getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2")]
    with torch.no_grad():
        hidden = [encoder(tokens, output_hidden_states=True).hidden_states[-2] for encoder in encoders if encoder]
        added = None
        if len(hidden) == 2:
            sizes = torch.tensor([[128, 128, 0, 0, 128, 128]]).repeat(2, 1)
            added = {"text_embeds": torch.randn(2, 48, generator=generator), "time_ids": sizes}
        predicted = pipeline.unet(
            torch.randn(2, 4, 16, 16, generator=generator),
            torch.tensor([10, 500]),
            torch.cat(hidden, dim=-1),
            added_cond_kwargs=added,
        ).sample
    return [predicted, *hidden]


def base_weights(pipeline: Any, weights: Weights) -> dict[tuple[str, str], Tensor]:
    return {
        (component, path): getattr(pipeline, component).get_submodule(path).weight.detach().clone()
        for component, path in weights
    }


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: build(root / name) for name, build in BUILDERS.items()}


def load(folder: Path) -> Any:
    loader: Any = DiffusionPipeline
    return loader.from_pretrained(folder)


@pytest.fixture(scope="module")
def trained(folders: dict[str, Path]) -> dict[str, Weights]:
    return {name: adapt(load(folders[name]), FAMILIES[name], "all").weights() for name in FAMILIES}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FAMILIES)
class TestInDiffusers:
    @pytest.mark.slow
    def test_loading_has_the_effect_of_the_adapter(
        self, folders: dict[str, Path], tmp_path: Path, name: str, layout: Layout
    ) -> None:
        pipeline = load(folders[name])
        before = outputs(pipeline)
        adapter = adapt(pipeline, FAMILIES[name], "all")
        adapted, weights = outputs(pipeline), adapter.weights()
        adapter.eject()
        bases = base_weights(pipeline, weights)
        write(tmp_path / "me.safetensors", weights, family=FAMILIES[name], layout=layout)

        pipeline.load_lora_weights(tmp_path, weight_name="me.safetensors")
        for loaded, ours, base in zip(outputs(pipeline), adapted, before, strict=True):
            assert relative(ours, base) > 0.05
            assert relative(loaded, ours) < 1e-3

        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        for (component, path), lora in weights.items():
            change = (lora.up.flatten(1) @ lora.down.flatten(1) * (ALPHA / RANK)).view_as(bases[component, path])
            fused = getattr(pipeline, component).get_submodule(path).weight.detach()
            assert relative(fused - bases[component, path], change) < 1e-3, path

    @pytest.mark.slow
    @pytest.mark.parametrize("targets", ["attention", "transformer", "all"])
    def test_every_choice_of_targets_is_verified(
        self, folders: dict[str, Path], tmp_path: Path, name: str, layout: Layout, targets: TargetModules
    ) -> None:
        weights = adapt(load(folders[name]), FAMILIES[name], targets).weights()
        write(tmp_path / "me.safetensors", weights, family=FAMILIES[name], layout=layout)
        verify_lora(tmp_path / "me.safetensors", weights, family=FAMILIES[name])

    @pytest.mark.slow
    def test_without_text_encoders(
        self, folders: dict[str, Path], tmp_path: Path, trained: dict[str, Weights], name: str, layout: Layout
    ) -> None:
        weights = {key: lora for key, lora in trained[name].items() if key[0] == "unet"}
        write(tmp_path / "me.safetensors", weights, family=FAMILIES[name], layout=layout)
        verify_lora(tmp_path / "me.safetensors", weights, family=FAMILIES[name])
        pipeline = load(folders[name])
        before = outputs(pipeline)
        pipeline.load_lora_weights(tmp_path, weight_name="me.safetensors")
        changed, *text = outputs(pipeline)
        assert relative(changed, before[0]) > 0.05
        assert all(torch.equal(ours, base) for ours, base in zip(text, before[1:], strict=True))


class TestKohyaLayout:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_three_tensors_per_module_and_no_peft_metadata(
        self, tmp_path: Path, trained: dict[str, Weights], name: str
    ) -> None:
        weights = trained[name]
        write(tmp_path / "me.safetensors", weights, family=FAMILIES[name])
        tensors = safetensors.torch.load_file(tmp_path / "me.safetensors")
        metadata, _ = safetensors_file.read_safetensors_header(tmp_path / "me.safetensors")
        prefixes = ("lora_unet_", "lora_te_") if name == "sd15" else ("lora_unet_", "lora_te1_", "lora_te2_")
        assert len(tensors) == 3 * len(weights)
        assert all(key.startswith(prefixes) for key in tensors)
        assert "lora_adapter_metadata" not in metadata
        for (component, path), lora in weights.items():
            key = FAMILIES[name].kohya_key(component, path)
            assert tensors[f"{key}.alpha"] == ALPHA
            assert tensors[f"{key}.alpha"].shape == ()
            assert torch.equal(tensors[f"{key}.lora_down.weight"], lora.down.half())
            assert torch.equal(tensors[f"{key}.lora_up.weight"], lora.up.half())

    def test_text_encoder_keys_carry_the_old_prefix(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        write(tmp_path / "me.safetensors", trained["sdxl"], family=FAMILIES["sdxl"])
        keys = set(safetensors.torch.load_file(tmp_path / "me.safetensors"))
        for prefix in ("lora_te1", "lora_te2"):
            assert f"{prefix}_text_model_encoder_layers_2_self_attn_out_proj.lora_up.weight" in keys


def test_peft_layout_has_no_alphas(tmp_path: Path, trained: dict[str, Weights]) -> None:
    write(tmp_path / "me.safetensors", trained["sdxl"], family=FAMILIES["sdxl"], layout="diffusers")
    metadata, entries = safetensors_file.read_safetensors_header(tmp_path / "me.safetensors")
    document = json.loads(metadata["lora_adapter_metadata"])
    assert len(entries) == 2 * len(trained["sdxl"])
    assert {key.partition(".")[0] for key in entries} == {"unet", "text_encoder", "text_encoder_2"}
    assert not any(key.endswith(".alpha") for key in entries)
    assert "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight" in entries
    assert (document["unet.r"], document["text_encoder_2.lora_alpha"]) == (RANK, RANK)


@pytest.mark.parametrize("alpha", [2.5, 16.0, 1 / 128])
def test_peft_layout_has_one_strength_in_readers_of_its_metadata_and_in_those_that_ignore_it(
    tmp_path: Path, trained: dict[str, Weights], alpha: float
) -> None:
    weights = {key: LoraWeights(lora.down, lora.up, alpha) for key, lora in trained["sd15"].items()}
    write(tmp_path / "me.safetensors", weights, family=FAMILIES["sd15"], layout="diffusers")
    verify_lora(tmp_path / "me.safetensors", weights, family=FAMILIES["sd15"])
    tensors = safetensors.torch.load_file(tmp_path / "me.safetensors")
    document = json.loads(
        safetensors_file.read_safetensors_header(tmp_path / "me.safetensors")[0]["lora_adapter_metadata"]
    )
    for (component, path), lora in weights.items():
        assert document[f"{component}.lora_alpha"] == document[f"{component}.r"], "both readers scale by 1"
        name = f"{component}.{path}" if component == "unet" else f"{component}.text_model.{path}"
        down, up = (tensors[f"{name}.lora_{side}.weight"].float().flatten(1) for side in "AB")
        assert relative(up @ down, lora.up.flatten(1) @ lora.down.flatten(1) * (alpha / RANK)) < 1e-3


class TestMetadata:
    def read(self, tmp_path: Path, weights: Weights, **changes: Any) -> dict[str, str]:
        write(tmp_path / "me.safetensors", weights, **changes)
        with safetensors.safe_open(tmp_path / "me.safetensors", "pt") as file:
            metadata: dict[str, str] = file.metadata()
        return metadata

    def test_says_what_was_trained(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        found = self.read(tmp_path, trained["sd15"], family=FAMILIES["sd15"])
        expected = {
            "ss_base_model_version": "sd_v1",
            "ss_v2": "False",
            "ss_network_module": "networks.lora",
            "ss_network_dim": "4",
            "ss_network_alpha": "2.5",
            "ss_output_name": "me",
            "ss_sd_model_name": "dream.safetensors",
            "ss_clip_skip": "None",
            "ss_resolution": "(512, 512)",
            "ss_learning_rate": "0.0001",
            "ss_steps": "12",
            "ss_epoch": "3",
            "ss_num_epochs": "3",
            "ss_num_train_images": "7",
            "ss_training_started_at": "1795343400.0",
            "ss_seed": "42",
        }
        assert {name: found[name] for name in expected} == expected
        assert json.loads(found["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "2.5"}
        assert json.loads(found["ss_tag_frequency"]) == {
            "1_ohwx woman": {"ohwx woman": 2, "smiling": 1, "ünïcode": 1, "red background": 1},
            "5_hat": {"ohwx woman": 1},
        }
        assert json.loads(found["ss_dataset_dirs"]) == {
            "1_ohwx woman": {"n_repeats": 1, "img_count": 2},
            "5_hat": {"n_repeats": 5, "img_count": 1},
        }
        (dataset,) = json.loads(found["ss_datasets"])
        assert (dataset["num_train_images"], dataset["resolution"]) == (7, [512, 512])
        assert dataset["tag_frequency"] == json.loads(found["ss_tag_frequency"])
        assert [(subset["image_dir"], subset["num_repeats"], subset["img_count"]) for subset in dataset["subsets"]] == [
            ("1_ohwx woman", 1, 2),
            ("5_hat", 5, 1),
        ]
        buckets = json.loads(found["ss_bucket_info"])["buckets"].values()
        assert sum(bucket["count"] for bucket in buckets) == 7
        assert {"resolution": [512, 512], "count": 2} in buckets

    def test_has_what_modelspec_demands(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        found = self.read(tmp_path, trained["sd15"], family=FAMILIES["sd15"])
        tensors_hash = safetensors_file.model_hash((tmp_path / "me.safetensors").read_bytes())
        assert {name: found[name] for name in found if name.startswith("modelspec.")} == {
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "modelspec.implementation": "diffusers",
            "modelspec.title": "Me at home",
            "modelspec.trigger_phrase": "ohwx woman",
            "modelspec.resolution": "512x512",
            "modelspec.prediction_type": "epsilon",
            "modelspec.date": "2026-11-22T10:30:00+00:00",
            "modelspec.hash_sha256": f"0x{tensors_hash}",
        }

    def test_is_shown_as_sdxl_by_automatic1111(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        found = self.read(tmp_path, trained["sdxl"], family=FAMILIES["sdxl"], prediction_type="v_prediction")
        assert found["ss_base_model_version"].startswith("sdxl_")
        assert found["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
        assert found["modelspec.prediction_type"] == "v"

    def test_hashes_are_those_of_the_reference_trainer(self, tmp_path: Path) -> None:
        # More than 1 MiB, where the legacy hash begins.
        lora = LoraWeights(down=torch.randn(RANK, 200_000), up=torch.randn(8, RANK), alpha=ALPHA)
        weights = {("unet", "mid_block.attentions.0.proj_in"): lora}
        found = self.read(tmp_path, weights, family=FAMILIES["sdxl"])
        data = (tmp_path / "me.safetensors").read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        assert found["sshs_model_hash"] == hashlib.sha256(data[8 + length :]).hexdigest()
        own = {name: value for name, value in found.items() if name.startswith("ss_")}
        alone = safetensors_file.canonical_safetensors(data, own)
        assert found["sshs_legacy_hash"] == hashlib.sha256(alone[0x100000:0x110000]).hexdigest()[:8]

    def test_a_hub_id_is_kept(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        run = spec()
        run = run.model_copy(update={"model": run.model.model_copy(update={"name": "org/name"})})
        path = tmp_path / "me.safetensors"
        plan = TrainingPlan(run)
        write_lora(path, trained["sd15"], spec=run, plan=plan, family=FAMILIES["sd15"], step=1, epoch=1)
        assert safetensors_file.read_safetensors_header(path)[0]["ss_sd_model_name"] == "org/name"


class TestBytes:
    @pytest.mark.slow
    def test_are_the_same_in_another_process(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "12345"}
        command = [sys.executable, __file__]
        printed = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
        assert printed.split()[-2:] == fixed_digests()

    def test_the_returned_hash_is_of_the_file(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        path = tmp_path / "me.safetensors"
        assert write(path, trained["sd15"], family=FAMILIES["sd15"]) == atomic_file.sha256_file(path)


def fixed_digests() -> list[str]:
    """SHA-256 of files with fixed weights, one per layout."""
    weights = {}
    for layer in range(9):
        generator = torch.Generator().manual_seed(layer)
        down, up = torch.randn(RANK, 32, generator=generator), torch.randn(64, RANK, generator=generator)
        path = f"down_blocks.0.attentions.{layer}.transformer_blocks.0.attn1.to_q"
        weights["unet", path] = LoraWeights(down=down, up=up, alpha=ALPHA)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "me.safetensors")
        return [write(file, weights, family=FAMILIES["sd15"], layout=layout) for layout in LAYOUTS]


class OtherFamily(StableDiffusion15):
    """One that diffusers' Stable Diffusion loaders are not asked about."""

    modelspec_architecture = "some-transformer-v1"

    def kohya_key(self, component: str, path: str) -> str:
        return f"lora_{component}_{path.replace('.', '_')}"


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    metadata, _ = safetensors_file.read_safetensors_header(path)
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata)


def drop_module(tensors: dict[str, Tensor]) -> None:
    for key in [key for key in tensors if "conv1" in key][:3]:
        module = key.partition(".")[0]
        for name in [name for name in tensors if name.startswith(module)]:
            del tensors[name]


def drop_alpha(tensors: dict[str, Tensor]) -> None:
    del tensors[next(key for key in tensors if key.endswith(".alpha"))]


def add_module(tensors: dict[str, Tensor]) -> None:
    for key in [key for key in tensors if "down_blocks_0_resnets_0_conv1" in key]:
        tensors[key.replace("resnets_0", "resnets_7")] = tensors[key].clone()


def set_alpha(tensors: dict[str, Tensor]) -> None:
    tensors[next(key for key in tensors if key.endswith(".alpha"))].fill_(RANK)


def swap_modules(tensors: dict[str, Tensor]) -> None:
    first, second = [key for key in tensors if key.endswith("attn1_to_k.lora_down.weight")][:2]
    tensors[first], tensors[second] = tensors[second], tensors[first]


def scale_slightly(tensors: dict[str, Tensor]) -> None:
    tensors[next(key for key in tensors if key.endswith("lora_up.weight"))].mul_(1.01)


def spoil(tensors: dict[str, Tensor]) -> None:
    tensors[next(key for key in tensors if key.endswith("lora_up.weight"))][0, 0] = float("nan")


class TestVerification:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (drop_module, "lacks the module"),
            (drop_alpha, "incomplete"),
            (add_module, "also changes the module"),
            (set_alpha, "by alpha 4, not 2.5"),
            (swap_modules, "is off by"),
            (scale_slightly, "is off by"),
            (spoil, "is off by"),
        ],
        ids=lambda value: getattr(value, "__name__", None),
    )
    @pytest.mark.parametrize(
        "family", [StableDiffusion15(), OtherFamily()], ids=lambda family: family.modelspec_architecture
    )
    def test_every_difference_is_found(
        self,
        tmp_path: Path,
        trained: dict[str, Weights],
        family: Family,
        change: Callable[[dict[str, Tensor]], None],
        message: str,
    ) -> None:
        path = tmp_path / "me.safetensors"
        write(path, trained["sd15"], family=family)
        verify_lora(path, trained["sd15"], family=family)
        rewrite(path, change)
        with pytest.raises(ExportError, match=message) as caught:
            verify_lora(path, trained["sd15"], family=family)
        assert str(path) in caught.value.message

    def test_a_foreign_key_is_found(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        path = tmp_path / "me.safetensors"
        write(path, trained["sd15"], family=FAMILIES["sd15"])
        rewrite(path, lambda tensors: tensors.update({"lora_unet_stray.diff": torch.zeros(1)}))
        with pytest.raises(ExportError, match="lora_unet_stray"):
            verify_lora(path, trained["sd15"], family=FAMILIES["sd15"])

    def test_an_unwritten_tail_is_found(self, tmp_path: Path, trained: dict[str, Weights]) -> None:
        path = tmp_path / "me.safetensors"
        write(path, trained["sd15"], family=FAMILIES["sd15"])
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ExportError, match="truncated"):
            verify_lora(path, trained["sd15"], family=FAMILIES["sd15"])

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_other_families_and_layouts(self, tmp_path: Path, trained: dict[str, Weights], layout: Layout) -> None:
        path = tmp_path / "me.safetensors"
        write(path, trained["sd15"], family=OtherFamily(), layout=layout)
        verify_lora(path, trained["sd15"], family=OtherFamily())
        others = {key: LoraWeights(2 * lora.down, lora.up, ALPHA) for key, lora in trained["sd15"].items()}
        with pytest.raises(ExportError, match="is off by"):
            verify_lora(path, others, family=OtherFamily())

    @pytest.mark.parametrize("size", [0.0, 1e-7, 1e-3, 1e3])
    def test_rounding_to_float16_passes_at_every_size(
        self, tmp_path: Path, trained: dict[str, Weights], size: float
    ) -> None:
        weights = {
            key: LoraWeights(down=lora.down, up=lora.up * size, alpha=ALPHA) for key, lora in trained["sd15"].items()
        }
        write(tmp_path / "me.safetensors", weights, family=FAMILIES["sd15"])
        verify_lora(tmp_path / "me.safetensors", weights, family=FAMILIES["sd15"])

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("alpha", [1.1, 16.0, 1 / 3])
    def test_every_alpha_is_kept(
        self, tmp_path: Path, trained: dict[str, Weights], layout: Layout, alpha: float
    ) -> None:
        weights = {key: LoraWeights(lora.down, lora.up, alpha) for key, lora in trained["sdxl"].items()}
        write(tmp_path / "me.safetensors", weights, family=FAMILIES["sdxl"], layout=layout)
        verify_lora(tmp_path / "me.safetensors", weights, family=FAMILIES["sdxl"])
        others = {key: LoraWeights(lora.down, lora.up, 1.01 * alpha) for key, lora in weights.items()}
        with pytest.raises(ExportError, match="by alpha" if layout == "kohya" else "is off by"):
            verify_lora(tmp_path / "me.safetensors", others, family=FAMILIES["sdxl"])

    @pytest.mark.parametrize(
        ("value", "fault"), [(1e5, "exceed the range of float16"), (float("nan"), "are not finite")]
    )
    def test_what_float16_cannot_hold_is_refused_before_a_file_appears(
        self, tmp_path: Path, trained: dict[str, Weights], value: float, fault: str
    ) -> None:
        weights = dict(trained["sd15"])
        key = list(weights)[5]
        weights[key] = LoraWeights(down=weights[key].down, up=weights[key].up + value, alpha=ALPHA)
        with pytest.raises(ExportError, match=fault) as caught:
            write(tmp_path / "me.safetensors", weights, family=FAMILIES["sd15"])
        assert ".".join(key) in caught.value.message
        assert list(tmp_path.iterdir()) == []

    def test_two_modules_of_one_key_are_refused(self, tmp_path: Path) -> None:
        lora = LoraWeights(down=torch.ones(RANK, 8), up=torch.ones(8, RANK), alpha=ALPHA)
        weights = {("unet", "a.b_c"): lora, ("unet", "a_b.c"): lora}
        with pytest.raises(ExportError, match="lora_unet_a_b_c"):
            write(tmp_path / "me.safetensors", weights, family=FAMILIES["sd15"])


if __name__ == "__main__":
    print(*fixed_digests())  # noqa: T201  # what the test of another process reads
