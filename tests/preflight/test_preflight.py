"""The pre-flight: the same as a real preparation, without torch, and never an exception for bad data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from influencerai import Trainer
from influencerai.demo.characters import write_character
from influencerai.preflight import AssumedDevice, Preflight, assumed_device, preflight
from tests.original_layout import save_hollow_file
from tests.small_models import small_sd15, small_sdxl
from tests.training_runs import make_config, make_settings, write_dataset

EMBEDDED = "influencerai/tiny-avatars"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {
        "embedded": EMBEDDED,
        "sd15": str(small_sd15(root / "sd15")),
        "sdxl": str(small_sdxl(root / "sdxl")),
    }


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hugging Face cache of the test's own: the user's may hold any model."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset")


def fly(root: Path, model: str = EMBEDDED, *, as_path: bool = True, **changes: Any) -> Preflight:
    """A pre-flight on `root`/dataset; `changes` replace fields of the config."""
    config = make_config(model, **changes)
    return preflight(config, root / "dataset", settings=make_settings(root), as_path=as_path)


def test_a_fault_of_the_output_path_leaves_the_plan_in_the_report(tmp_path: Path, dataset: Path) -> None:
    found = fly(tmp_path, outputPath="out/a\\b")
    assert [error for error in found.errors if error.startswith("outputPath: ")] == list(found.errors)
    assert found.plan
    assert found.plan.total_steps > 0
    assert not found.spec


@pytest.mark.slow
@pytest.mark.parametrize("model", ["embedded", "sd15", "sdxl"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resolution": 320, "networkAlpha": 64, "batchSize": 3},
        {"meta": {"optimizer": "ScheduleFreeAdamW", "ema": True, "validationSplit": 0.4}},
        {"meta": {"optimizer": "Prodigy", "textEncoderLearningRate": 0.5, "precision": "fp16", "seed": 7}},
        {"meta": {"zeroTerminalSnr": True, "gradientCheckpointing": True, "bucketStep": 32, "typo5": 1}},
        {"meta": {"predictionType": "v_prediction", "saveEveryNEpochs": 1, "repeats": 3}},
    ],
)
def test_spec_and_warnings_are_those_of_a_real_preparation(
    model: str, changes: dict[str, Any], models: dict[str, str], dataset: Path, tmp_path: Path
) -> None:
    found = fly(tmp_path, models[model], **changes)
    real = Trainer(make_config(models[model], **changes), settings=make_settings(tmp_path)).prepare(dataset)
    assert (found.ok, found.errors) == (True, ())
    assert _comparable(found.to_wire()["spec"]) == _comparable(real.spec.to_wire())
    assert sorted(found.warnings) == sorted(real.warnings)
    assert found.dataset == real.report


def _comparable(spec: dict[str, Any]) -> dict[str, Any]:
    """Without what depends on time and device."""
    plan = {name: value for name, value in spec["plan"].items() if name not in ("deviceName", "build")}
    return {name: value for name, value in spec.items() if name != "createdAt"} | {"plan": plan}


def test_plan_memory_and_time(tmp_path: Path) -> None:
    write_character("ava", tmp_path / "dataset")
    config = make_config(EMBEDDED, epochs=5, batchSize=3, meta={"saveEveryNEpochs": 2, "repeats": 2})
    settings = make_settings(tmp_path)
    found = preflight(config, tmp_path / "dataset", settings=settings, as_path=False, throughput=8)
    count = found.dataset.usable_count
    assert found.plan is not None
    assert found.plan.to_wire() == {
        "imagesPerEpoch": 2 * count,
        "stepsPerEpoch": -(-2 * count // 3),
        "epochs": 5,
        "totalSteps": 5 * -(-2 * count // 3),
        "imagesSeen": 10 * count,
        "saveEpochs": [2, 4],
        "validationImages": 0,
        "buckets": [{"width": 128, "height": 128, "images": count, "leastKept": 1.0, "meanKept": 1.0}],
    }
    assert found.time.seconds == 5 * 2 * count / 8
    assert found.memory.gb == round(sum(found.memory.parts.values()), 1)
    assert "scaled to the model's own" in found.memory.basis
    for throughput in (None, 0.0, -1.0, float("nan"), float("inf"), 1e-320):
        found = preflight(config, tmp_path / "dataset", settings=settings, as_path=False, throughput=throughput)
        assert found.time.seconds is None
        assert "no figures" in found.time.basis
    assert json.loads(json.dumps(found.to_wire())) == found.to_wire()


def test_sdxl_on_a_cpu_is_warned_of_with_the_time_that_it_takes(tmp_path: Path, dataset: Path) -> None:
    settings = make_settings(tmp_path, allow_downloads=True)
    config = make_config("sdxl", resolution=1024, epochs=20, meta={"repeats": 20})
    found = preflight(config, dataset, settings=settings, as_path=True)
    assert found.ok
    (text,) = [text for text in found.warnings if "No GPU is used" in text]
    assert "about 9 days on 1 CPU thread" in text


@pytest.mark.slow
def test_no_torch(tmp_path: Path, dataset: Path, models: dict[str, str]) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from influencerai.domain import LoraConfig
        from influencerai.preflight import preflight
        from influencerai.settings import Settings
        settings = Settings(root=Path({str(tmp_path)!r}))
        for name in ("{EMBEDDED}", {models["sdxl"]!r}, "absent", "org/absent", "sdxl"):
            config = LoraConfig(name="x", model_name=name, resolution=128, meta={{"optimizer": "AdamW8bit"}})
            preflight(config, Path({str(dataset)!r}), settings=settings, as_path=True).to_wire()
        heavy = ("torch", "diffusers", "transformers", "accelerate", "peft", "bitsandbytes", "pytorch_optimizer")
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_missing_folder(tmp_path: Path) -> None:
    found = fly(tmp_path)
    assert not found.ok
    assert found.errors == (f"{tmp_path / 'dataset'} cannot be trained on: The folder does not exist. Check the path.",)
    assert (found.spec, found.plan, found.memory.gb, found.time.seconds) == (None, None, None, None)


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    assert "It holds no images." in _only_error(fly(tmp_path))
    (tmp_path / "dataset/broken.png").write_bytes(b"nothing")
    assert "None of its 1 images can be used." in _only_error(fly(tmp_path))


def test_a_broken_image_is_left_out(dataset: Path, tmp_path: Path) -> None:
    (dataset / "broken.png").write_bytes(b"")
    found = fly(tmp_path)
    assert found.ok
    assert "1 of 6 images are left out: broken.png (The file is empty. Copy or download it again)." in found.warnings
    assert found.plan is not None
    assert found.plan.images_per_epoch == 5


@pytest.mark.parametrize("name", ["absent", "org/absent", "sdxl", "~nobody/x", "a" * 255])
def test_an_unknown_model(name: str, dataset: Path, tmp_path: Path) -> None:
    found = fly(tmp_path, name)
    assert f"There is no base model '{name}'." in _only_error(found)
    assert found.spec is None
    assert found.plan is not None, "steps are known without a model"


def test_a_model_that_would_be_downloaded(dataset: Path, tmp_path: Path) -> None:
    config, settings = make_config("org/absent"), make_settings(tmp_path, allow_downloads=True)
    found = preflight(config, dataset, settings=settings, as_path=False)
    assert (found.ok, found.spec) == (True, None)
    assert any("'org/absent' is not whole on this machine: the job downloads it" in text for text in found.warnings)
    for name in ("absent", "../absent"):
        assert not preflight(make_config(name), dataset, settings=settings, as_path=False).ok


def test_a_pickle(dataset: Path, models: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    torch.save({}, tmp_path / "models/mine.ckpt")
    assert "is a pickle" in _only_error(fly(tmp_path, "mine", as_path=False))
    copy = shutil.copytree(models["sd15"], tmp_path / "copy")
    (copy / "unet/diffusion_pytorch_model.safetensors").rename(copy / "unet/diffusion_pytorch_model.bin")
    assert "pickles only" in _only_error(fly(tmp_path, str(copy)))


@pytest.mark.parametrize("form", ["{model}", "../{parent}/sd15", "..", "~", "./sd15"])
def test_a_strangers_model_is_no_path(form: str, models: dict[str, str], dataset: Path, tmp_path: Path) -> None:
    name = form.format(model=models["sd15"], parent=Path(models["sd15"]).parent.name)
    assert "There is no base model" in _only_error(fly(tmp_path, name, as_path=False))


def test_a_single_file_of_another_family(dataset: Path, tmp_path: Path) -> None:
    path = save_hollow_file({"double_blocks.0.img": torch.zeros(1)}, tmp_path / "flux.safetensors")
    assert "FLUX" in _only_error(fly(tmp_path, str(path)))


@pytest.mark.parametrize(
    ("file", "changes", "text"),
    [
        ("unet/config.json", {"sample_size": 10**4000}, "sample_size"),
        ("unet/config.json", {"sample_size": -1}, "sample_size"),
        ("unet/config.json", {"block_out_channels": [10**300] * 8}, "exceeds resolution"),
        ("unet/config.json", {"block_out_channels": [1] * 100_000}, "block_out_channels"),
        ("unet/config.json", {"in_channels": {"deep": [[]]}}, "inpainting"),
        ("vae/config.json", {"scaling_factor": "1" * 10_000}, "scaling_factor"),
        ("vae/config.json", {"block_out_channels": {}}, "block_out_channels"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**4000}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"prediction_type": ["epsilon"]}, "not supported"),
        ("model_index.json", {"_class_name": ["StableDiffusionPipeline"]}, "not supported"),
    ],
)
def test_hostile_configs(
    file: str, changes: dict[str, Any], text: str, models: dict[str, str], dataset: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(models["sd15"], tmp_path / "copy")
    document = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(document | changes))
    assert text in _only_error(fly(tmp_path, str(copy)))


def test_absurd_numbers_that_a_model_may_hold(models: dict[str, str], dataset: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(models["sd15"], tmp_path / "copy")
    path = copy / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_block": 10**9, "norm_num_groups": 0}))
    assert fly(tmp_path, str(copy)).ok, "what torch would build of it is for the job to find out"


def test_options_that_cannot_be_planned(dataset: Path, tmp_path: Path) -> None:
    found = fly(tmp_path, meta={"bucketStep": 512})
    assert "bucketStep 512 exceeds resolution 128" in _only_error(found)
    assert (found.spec, found.plan) == (None, None)


@pytest.mark.parametrize(
    ("optimizer", "package", "text"),
    [("AdamW8bit", "bitsandbytes", "uses AdamW, which needs more memory"), ("Lion", "pytorch_optimizer", "fails")],
)
def test_a_missing_optimizer_is_foreseen(
    optimizer: str, package: str, text: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("optimizer" in text for text in fly(tmp_path, meta={"optimizer": optimizer}).warnings)
    monkeypatch.setitem(sys.modules, package, None)
    found = fly(tmp_path, meta={"optimizer": optimizer})
    assert found.ok
    assert any(f"{optimizer} needs the package {package}" in warning and text in warning for warning in found.warnings)


def test_the_device_is_assumed(tmp_path: Path) -> None:
    assert assumed_device("auto", gpus=tmp_path).kind == "cpu"
    forced = assumed_device("cuda", gpus=tmp_path)
    assert forced.kind == "cuda"
    assert "fails" in forced.warnings[0]
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0/information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: \t 42\n")
    found = assumed_device("auto", gpus=tmp_path)
    assert (found.kind, found.name, found.warnings) == ("cuda", "NVIDIA H100 80GB HBM3", ())
    assert "Assumed" in found.basis
    assert assumed_device("cpu", gpus=tmp_path).kind == "cpu"


def test_another_device_can_be_given(dataset: Path, tmp_path: Path) -> None:
    device = AssumedDevice(kind="cuda", name="NVIDIA T4", has_bf16=False, basis="Reported by a worker.")
    config = make_config(EMBEDDED, meta={"precision": "bf16"})
    found = preflight(config, dataset, settings=make_settings(tmp_path), as_path=False, device=device)
    assert found.spec is not None
    assert (found.spec.plan.device, found.spec.plan.device_name) == ("cuda", "NVIDIA T4")
    assert found.device == device
    assert any("only emulates bf16" in text for text in found.warnings)


def _only_error(found: Preflight) -> str:
    assert not found.ok
    assert len(found.errors) == 1, found.errors
    return found.errors[0]
