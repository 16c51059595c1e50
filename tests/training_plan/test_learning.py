"""What keeps a training from learning is said before it starts; a training that shows too little as well."""

from __future__ import annotations

from typing import Any

import pytest

from influencerai.domain import LoraConfig, SampleSpec
from influencerai.domain.presets import PRESETS, PresetName
from influencerai.training_plan import Outline, TrainingPlan, chosen_exposure, exposure_text


def images(count: int, *, repeats: int = 1) -> list[SampleSpec]:
    return [
        SampleSpec(path=f"{index}.png", sha256=f"{index:064}", width=512, height=512, caption="ohwx", repeats=repeats)
        for index in range(count)
    ]


def planned(config: LoraConfig, samples: list[SampleSpec]) -> TrainingPlan:
    config, options = chosen_exposure(config, config.options, samples)
    return TrainingPlan(Outline(config=config, options=options, samples=samples))


def warnings(count: int = 20, **fields: Any) -> list[str]:
    document = {"name": "me", "modelName": "sd15", "epochs": 10, "meta": {"repeats": 10}, **fields}
    return list(planned(LoraConfig.parse(document), images(count)).warnings)


def test_a_usual_training_is_not_warned_about() -> None:
    assert warnings() == []
    assert warnings(meta={"repeats": 10, "maxGradNorm": 0, "minSnrGamma": None}) == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"learningRate": 1e-4, "meta": {"optimizer": "Prodigy", "imagesSeen": 2000}}, "0.0001 learns next to nothing"),
        ({"learningRate": 1e-6}, "1e-06 is too low for AdamW"),
        ({"learningRate": 0.5}, "0.5 is too high for AdamW"),
        ({"learningRate": 1e-4, "meta": {"optimizer": "Adafactor", "imagesSeen": 2000}}, "too low for Adafactor"),
        ({"meta": {"warmupSteps": 3000, "repeats": 10}}, "takes the whole training of 2000"),
        ({"meta": {"warmupSteps": 1500, "repeats": 10}}, "rises for 1500 of 2000 steps"),
        ({"meta": {"lrScheduler": "cosine_with_restarts", "lrCycles": 100}, "epochs": 5}, "lrCycles is 100"),
        ({"batchSize": 64, "meta": {}, "epochs": 100}, "batchSize is 64, but an epoch has 20 images"),
        ({"meta": {"gradientAccumulation": 64}, "epochs": 100}, "gradientAccumulation is 64"),
        ({"meta": {"captionDropout": 1.0, "repeats": 10}}, "the trigger word learns nothing"),
        ({"meta": {"trainTextEncoder": True, "textEncoderLearningRate": 0, "repeats": 10}}, "trains no text encoder"),
        ({"meta": {"textEncoderLearningRate": 1e-5, "repeats": 10}}, "without trainTextEncoder"),
        ({"meta": {"trainTextEncoder": True, "textEncoderLearningRate": 0.5, "repeats": 10}}, "0.5 is too high for"),
        ({"meta": {"maxGradNorm": 1e-6, "repeats": 10}}, "maxGradNorm 1e-06 clips gradients to next to nothing"),
        ({"meta": {"minSnrGamma": 1e-9, "repeats": 10}}, "minSnrGamma 1e-09 weighs the loss down"),
        ({"networkDim": 512, "networkAlpha": 1}, "scales the adapter by 0.002"),
        ({"meta": {"validationSplit": 0.9, "repeats": 100}}, "holds out 18 of 20 images: 2 are trained on"),
        ({"meta": {}}, "200 images are seen in all"),
        ({"meta": {"repeats": 100}}, "20,000 images are seen in all, each 1,000 times"),
    ],
)
def test_what_cannot_learn_is_said(fields: dict[str, Any], text: str) -> None:
    assert any(text in warning for warning in warnings(**fields)), warnings(**fields)


def test_a_warm_up_that_never_arrives_says_where_it_ends() -> None:
    found = warnings(count=4, epochs=2, meta={"warmupSteps": 500})
    assert any("500 steps takes the whole training of 8" in text and "at 88% of" in text for text in found)


@pytest.mark.parametrize(("name", "aim"), [("conservative", 3000), ("balanced", 2000), ("fast", 1500)])
@pytest.mark.parametrize("count", [5, 12, 20, 30, 100])
def test_a_preset_aims_at_images_seen(name: PresetName, aim: int, count: int) -> None:
    config = LoraConfig.preset(name, name="me", model_name="sd15")
    plan = planned(config, images(count))
    assert plan.epochs == PRESETS[name].epochs
    assert abs(plan.total_images - aim) <= max(count * plan.epochs / 2, 0.05 * aim)
    assert plan.warnings == ()


def test_no_preset_and_no_epochs_aim_at_images_seen_too() -> None:
    aimed = LoraConfig(name="me", model_name="sd15").aimed()
    assert planned(aimed, images(20)).total_images == 2000
    assert planned(aimed, images(500)).epochs == 4
    assert planned(aimed, images(20, repeats=5)).total_images == 2000, "repeats of folders count"
    for field in ({"epochs": 10}, {"meta": {"repeats": 3}}, {"meta": {"imagesSeen": 1200}}):
        config = LoraConfig.parse({"name": "me", "modelName": "sd15", **field})
        assert config.aimed() == config


def test_a_document_that_says_nothing_keeps_the_contracts_meaning() -> None:
    config = LoraConfig.parse({"name": "me", "modelName": "sd15"})
    assert planned(config, images(20)).total_images == 200


def test_who_sets_epochs_or_repeats_decides_what_is_seen() -> None:
    few = LoraConfig.preset("balanced", name="me", model_name="sd15", epochs=5)
    assert planned(few, images(20)).total_images == 100
    own = LoraConfig.preset("balanced", name="me", model_name="sd15", images_seen=1200)
    assert planned(own, images(20)).total_images == 1200


def test_a_plan_says_what_it_shows() -> None:
    plan = planned(LoraConfig.preset("balanced", name="me", model_name="sd15"), images(20))
    assert exposure_text(plan) == (
        "20 images x 5 repeats x 20 epochs: 2,000 images seen in 1,000 steps; files after epochs 5, 10, 15 and 20."
    )


def test_prodigys_rate_is_one_where_none_is_given() -> None:
    start = {"name": "me", "modelName": "sd15", "meta": {"optimizer": "Prodigy"}}
    assert LoraConfig.parse(start).learning_rate == 1
    assert LoraConfig.parse({**start, "learningRate": 1e-4}).learning_rate == 1e-4
    assert LoraConfig(name="me", model_name="sd15", optimizer="Prodigy").learning_rate == 1
    back = LoraConfig(name="me", model_name="sd15", optimizer="Prodigy").with_(optimizer="AdamW")
    assert back.learning_rate == 1e-4
