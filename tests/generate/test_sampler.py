from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL.Image import Image

from influencerai.errors import ModelError, ValidationError
from influencerai.files import safetensors_file
from influencerai.generate.sampler import Sampler
from influencerai.lora.description import describe_lora
from influencerai.settings import Settings
from influencerai.train.runs.run import Run
from influencerai.train.trainer import Trainer
from tests.small_models import small_sd15
from tests.training_runs import make_config, make_settings, write_dataset

QUICK: dict[str, Any] = {"steps": 2, "size": 64}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("sampler")
    small_sd15(root / "models" / "small")
    write_dataset(root / "data", count=2)
    return make_settings(root)


@pytest.fixture(scope="module")
def run(settings: Settings) -> Run:
    """A training whose LoRA changes what is drawn: a high rate, text encoder included."""
    config = make_config(
        "small", epochs=2, learningRate=0.1, meta={"trainTextEncoder": True, "lrScheduler": "constant"}
    )
    return Trainer(config, settings=settings).train("data")


@pytest.fixture(scope="module")
def sampler(settings: Settings) -> Sampler:
    return Sampler("small", settings=settings)


def pixels(rows: list[list[Image]]) -> np.ndarray:
    return np.array([[np.asarray(image, dtype=np.float32) for image in row] for row in rows])


@pytest.mark.parametrize("prompts", [None, 3, [], ["a", 3], b"a", {"a"}])
def test_prompts_that_are_no_texts_are_refused(prompts: Any, sampler: Sampler) -> None:
    with pytest.raises(ValidationError, match="prompts: Input should be a text or a list of texts"):
        sampler.draw(prompts, **QUICK)


@pytest.mark.parametrize(
    ("name", "value"),
    [("count", 0), ("count", 1.5), ("count", "2"), ("seed", -1), ("steps", 0), ("steps", True), ("size", 0)],
)
def test_numbers_that_cannot_be_drawn_by_are_refused(name: str, value: Any, sampler: Sampler) -> None:
    with pytest.raises(ValidationError, match=f"{name}: Input should be an integer of [01] or more"):
        sampler.draw("a", **(QUICK | {name: value}))
    with pytest.raises(ValidationError, match="lora: Input should be a path"):
        sampler.draw("a", lora=3, **QUICK)  # type: ignore[arg-type]


@pytest.mark.slow
def test_one_text_is_one_row_and_numbers_may_be_numpys(sampler: Sampler, run: Run) -> None:
    numbers: dict[str, Any] = {"count": np.int64(1), "seed": np.int32(3)}
    [row] = sampler.draw("ohwx woman", lora=str(run.lora_path), **numbers, **QUICK)
    [[same]] = sampler.draw(["ohwx woman"], lora=run.lora_path, seed=3, **QUICK)
    assert [image.tobytes() for image in row] == [same.tobytes()]


def test_rows_columns_and_sizes(sampler: Sampler) -> None:
    rows = sampler.draw(["ohwx woman", "a man"], count=3, **QUICK)
    assert [len(row) for row in rows] == [3, 3]
    assert {image.size for row in rows for image in row} == {(64, 64)}


def test_the_size_defaults_to_the_models_own_and_to_what_the_lora_was_trained_at(sampler: Sampler, run: Run) -> None:
    assert sampler.draw(["a man"], steps=1)[0][0].size == (128, 128)
    assert describe_lora(run.lora_path).resolution == 128


def test_a_picture_depends_on_its_seed_and_not_on_the_others(sampler: Sampler) -> None:
    together = pixels(sampler.draw(["a man"], count=5, seed=7, **QUICK))[0]
    alone = pixels(sampler.draw(["a man"], seed=11, **QUICK))[0, 0]
    assert np.abs(together[4] - alone).max() <= 1
    assert np.abs(together[3] - alone).max() > 10


@pytest.mark.slow
def test_the_lora_changes_the_pictures_and_leaves_the_base_as_it_was(sampler: Sampler, run: Run) -> None:
    before = pixels(sampler.draw(["ohwx woman"], **QUICK))
    with_lora = pixels(sampler.draw(["ohwx woman"], lora=run.lora_path, **QUICK))
    halved = pixels(sampler.draw(["ohwx woman"], lora=run.lora_path, strength=0.5, **QUICK))
    unused = pixels(sampler.draw(["ohwx woman"], lora=run.lora_path, strength=0, **QUICK))
    after = pixels(sampler.draw(["ohwx woman"], **QUICK))
    assert np.abs(with_lora - before).mean() > 1
    assert np.abs(with_lora - halved).mean() > 0.5
    assert np.abs(unused - before).max() <= 1
    assert np.array_equal(before, after)


@pytest.mark.slow
def test_a_run_draws_what_the_sampler_draws(sampler: Sampler, run: Run) -> None:
    drawn = run.sample(["ohwx woman", "a man"], count=2, seed=3, steps=2)
    rows = sampler.draw(["ohwx woman", "a man"], lora=run.lora_path, count=2, seed=3, steps=2)
    assert np.array_equal(pixels([drawn]), pixels([[*rows[0], *rows[1]]]))


def test_progress_counts_every_picture(sampler: Sampler) -> None:
    seen: list[tuple[int, int]] = []
    sampler.draw(["a man", "a woman"], count=5, on_progress=lambda done, total: seen.append((done, total)), **QUICK)
    assert seen == [(0, 10), (4, 10), (5, 10), (9, 10), (10, 10)]


def write_lora(path: Path, *, metadata: dict[str, str], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    body = safetensors.torch.save(tensors or {"lora_unet_x.alpha": torch.ones(())})
    path.write_bytes(safetensors_file.canonical_safetensors(body, metadata))
    return path


def test_a_lora_of_another_family_is_refused(sampler: Sampler, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "xl.safetensors", metadata={"ss_base_model_version": "sdxl_base_v0-9"})
    with pytest.raises(ModelError, match=r"xl\.safetensors was trained on a base of the kind sdxl_base_v0-9"):
        sampler.draw(["a man"], lora=path, **QUICK)


def test_a_lora_that_does_not_fit_is_refused_and_the_sampler_still_draws(sampler: Sampler, tmp_path: Path) -> None:
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{key}.lora_down.weight": torch.ones(2, 320),
        f"{key}.lora_up.weight": torch.ones(320, 2),
        f"{key}.alpha": torch.ones(()),
    }
    path = write_lora(tmp_path / "big.safetensors", metadata={}, tensors=tensors)
    with pytest.raises(ModelError, match=r"big\.safetensors does not fit"):
        sampler.draw(["a man"], lora=path, **QUICK)
    assert len(sampler.draw(["a man"], **QUICK)) == 1


def test_a_file_that_is_no_lora_is_named(sampler: Sampler, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(struct.pack("<Q", 1000) + b"{")
    with pytest.raises(ModelError, match=r"cut\.safetensors is truncated"):
        sampler.draw(["a man"], lora=path, **QUICK)


def small_lora(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A LoRA of one module of the small model."""
    parts = {"lora_down.weight": torch.ones(2, 32), "lora_up.weight": torch.ones(32, 2), "alpha": torch.ones(())}
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    return {f"{key}.{name}": changes.get(name.partition(".")[0], tensor) for name, tensor in parts.items()}


@pytest.mark.parametrize(
    ("tensors", "metadata", "text"),
    [
        (small_lora(lora_up=torch.full((32, 2), torch.nan)), {}, "infinite or too large"),
        (small_lora(alpha=torch.tensor(torch.inf)), {}, "infinite or too large"),
        (small_lora(alpha=torch.tensor(1e30)), {}, "infinite or too large"),
        (small_lora(lora_up=torch.ones(64), lora_down=torch.ones(64)), {}, "does not fit"),
        (
            {"lora_te3_x.lora_down.weight": torch.ones(2, 2), "lora_te3_x.lora_up.weight": torch.ones(2, 2)},
            {},
            "1 modules",
        ),
        (small_lora(), {"lora_adapter_metadata": "[]"}, "does not fit"),
    ],
    ids=["nan", "infinite alpha", "large alpha", "vectors", "no module", "metadata"],
)
def test_a_damaged_lora_is_named_and_the_sampler_still_draws(
    sampler: Sampler, tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], text: str
) -> None:
    before = pixels(sampler.draw(["a man"], **QUICK))
    path = write_lora(tmp_path / "bad.safetensors", metadata=metadata, tensors=tensors)
    with pytest.raises(ModelError, match=rf"bad\.safetensors.*{text}"):
        sampler.draw(["a man"], lora=path, **QUICK)
    assert np.array_equal(pixels(sampler.draw(["a man"], **QUICK)), before)


def test_a_file_that_is_safetensors_and_pickle_at_once_is_not_opened(sampler: Sampler, tmp_path: Path) -> None:
    polyglot = write_lora(tmp_path / "both.pt", metadata={}, tensors=small_lora())
    with pytest.raises(ModelError, match=r"both\.pt is a pickle"):
        sampler.draw(["a man"], lora=polyglot, **QUICK)


@pytest.mark.parametrize("said", ["1x1", "99999x99999", "9" * 5000, "5000", "٣٣٣", "none"])
def test_a_resolution_that_nothing_can_be_drawn_at_is_ignored(said: str, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "lora.safetensors", metadata={"modelspec.resolution": said})
    assert describe_lora(lora).resolution is None


def test_a_lora_tells_its_model_and_resolution(run: Run, tmp_path: Path) -> None:
    found = describe_lora(run.lora_path)
    assert (found.model_name, found.base_model_version, found.resolution) == ("small", "sd_v1", 128)
    kohya = write_lora(tmp_path / "kohya.safetensors", metadata={"ss_resolution": "(768, 512)"})
    assert describe_lora(kohya).resolution == 512
    assert describe_lora(write_lora(tmp_path / "bare.safetensors", metadata={})).model_name is None


@pytest.mark.slow
def test_a_lora_is_sampled_by_what_it_was_trained_to_predict(settings: Settings, sampler: Sampler) -> None:
    config = make_config("small", epochs=1, outputPath="loras/v", meta={"predictionType": "v_prediction"})
    lora = Trainer(config, settings=settings).train("data").lora_path
    assert describe_lora(lora).prediction_type == "v_prediction"
    base = sampler.draw(["a man"], **QUICK)
    as_velocity = sampler.draw(["a man"], lora=lora, strength=0.0, **QUICK)
    assert np.abs(pixels(as_velocity) - pixels(base)).mean() > 1
    assert np.array_equal(pixels(sampler.draw(["a man"], **QUICK)), pixels(base))


MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = f"lora_unet_{MODULE.replace('.', '_')}"


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "LoHa"),
        (("lokr_w1", "lokr_w2"), "LoKr"),
        (("oft_blocks",), "OFT"),
        (("lora_down.weight", "lora_up.weight", "dora_scale"), "DoRA"),
        (("diff",), "full difference"),
        (("lora_mid.weight",), "LoCon with a core"),
    ],
)
def test_a_kind_that_is_not_applied_is_named_and_counted(
    parts: tuple[str, ...], kind: str, sampler: Sampler, tmp_path: Path
) -> None:
    foreign = {f"{KEY.replace('to_q', 'to_k')}.{part}": torch.ones(2, 2) for part in parts}
    path = write_lora(tmp_path / "other.safetensors", metadata={}, tensors=small_lora() | foreign)
    with pytest.raises(ModelError, match=rf"is of the kind {kind}.* in 1 of 2 modules") as caught:
        sampler.draw(["a man"], lora=path, **QUICK)
    assert "LyCORIS" in str(caught.value.remedy)
    assert len(caught.value.message) < 500


def test_modules_that_the_base_lacks_are_named_and_counted(sampler: Sampler, tmp_path: Path) -> None:
    absent = {name.replace("attn1_to_q", "attn3_to_q"): tensor for name, tensor in small_lora().items()}
    second = {name.replace("lora_unet", "lora_te2"): tensor for name, tensor in small_lora().items()}
    for extra, named in ((absent, "attn3_to_q"), (second, "lora_te2_")):
        path = write_lora(tmp_path / "more.safetensors", metadata={}, tensors=small_lora() | extra)
        with pytest.raises(ModelError, match=rf"more\.safetensors changes 2 modules, .* not have 1 .*{named}"):
            sampler.draw(["a man"], lora=path, **QUICK)


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_pefts_own_file_is_applied_with_its_alpha(sampler: Sampler, tmp_path: Path, alpha: float) -> None:
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    kohya = small_lora(lora_down=down, lora_up=up, alpha=torch.tensor(alpha))
    text = "text_model.encoder.layers.0.self_attn.out_proj"
    tensors: dict[str, torch.Tensor] = {}
    for module, key in ((MODULE, KEY), (text, f"lora_te_{text.replace('.', '_')}")):
        pair = {"lora_A": down.clone(), "lora_B": up.clone()}
        tensors |= {f"base_model.model.{module}.{part}.weight": tensor for part, tensor in pair.items()}
        kohya |= {f"{key}.lora_down.weight": down.clone(), f"{key}.lora_up.weight": up.clone()}
        kohya[f"{key}.alpha"] = torch.tensor(alpha)
    (tmp_path / "peft").mkdir()
    path = write_lora(tmp_path / "peft" / "adapter_model.safetensors", metadata={}, tensors=tensors)
    with pytest.raises(ModelError, match=r"adapter_config\.json, which holds its alpha, is not beside it"):
        sampler.draw(["a man"], lora=path, **QUICK)
    (tmp_path / "peft" / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "r": 2, "lora_alpha": {alpha}}}')
    expected = write_lora(tmp_path / "kohya.safetensors", metadata={}, tensors=kohya)
    drawn = [pixels(sampler.draw(["a man"], lora=lora, **QUICK)) for lora in (None, path, expected)]
    assert np.abs(drawn[1] - drawn[2]).max() <= 1
    assert np.abs(drawn[1] - drawn[0]).max() > 1


def test_a_base_model_is_no_lora(sampler: Sampler, settings: Settings, tmp_path: Path) -> None:
    unet = settings.models_dirs[0] / "small" / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ModelError, match="is no LoRA"):
        sampler.draw(["a man"], lora=unet, **QUICK)
