from __future__ import annotations

import io
import json
import re

import pytest
from PIL import Image

from influencerai.generate.picture_record import LoraUse, ModelIdentity, PictureRecord, encoded, model_label

SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""A setting as A1111 and what reads its pictures find it in the last line of the text."""


def record(**changes: object) -> PictureRecord:
    fields: dict[str, object] = {
        "prompt": "ohwx woman, 魔女",
        "negative_prompt": "hat, blurry",
        "seed": 7,
        "steps": 25,
        "sampler": "Euler",
        "guidance": 5.0,
        "width": 128,
        "height": 64,
        "model": ModelIdentity(name="org/model, v1:2", sha256="0123456789abcdef"),
        "lora": LoraUse(name="me-epoch-5", strength=0.8, sha256="f" * 64),
    }
    return PictureRecord(**fields | changes)  # type: ignore[arg-type]


def test_the_text_is_a1111s() -> None:
    prompt, negative, settings = record().parameters.split("\n")
    assert prompt == "ohwx woman, 魔女 <lora:me-epoch-5:0.8>"
    assert negative == "Negative prompt: hat, blurry"
    found = dict(SETTING.findall(settings))
    assert found.pop("Version").startswith("influencerai ")
    assert found == {
        "Steps": "25",
        "Sampler": "Euler",
        "CFG scale": "5",
        "Seed": "7",
        "Size": "128x64",
        "Model hash": "0123456789",
        "Model": "org/model v12",
        "Lora hashes": '"me-epoch-5: ffffffffffff"',
    }


def test_of_the_base_model_alone_there_is_no_lora_and_no_empty_line() -> None:
    text = record(lora=None, negative_prompt="", model=ModelIdentity(name="sd15")).parameters
    assert [line.partition(":")[0] for line in text.split("\n")] == ["ohwx woman, 魔女", "Steps"]
    assert "ora" not in text.split("\n")[1]
    assert "Model hash" not in text


def test_a_png_carries_the_text_and_the_same_as_json() -> None:
    image = record().attach(Image.new("RGB", (8, 8)))
    with Image.open(io.BytesIO(encoded(image))) as found:
        assert found.info["parameters"] == record().parameters
        document = json.loads(found.info["influencerai"])
    assert (document["seed"], document["guidance"], document["model"]) == (7, 5.0, "org/model, v1:2")
    assert document["lora"] == {"name": "me-epoch-5", "strength": 0.8, "sha256": "f" * 64}
    assert "epoch" not in document


@pytest.mark.parametrize("format_name", ["JPEG", "WEBP"])
def test_other_formats_carry_the_text_as_user_comment(format_name: str) -> None:
    image = record().attach(Image.new("RGB", (8, 8)))
    with Image.open(io.BytesIO(encoded(image, format_name=format_name))) as found:
        comment = found.getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == record().parameters


def test_a_picture_without_a_record_is_saved_without_one() -> None:
    with Image.open(io.BytesIO(encoded(Image.new("RGB", (8, 8))))) as found:
        assert found.info == {}


def test_a_models_label_names_no_folder_of_this_machine() -> None:
    assert model_label("/home/ann/models/dream.safetensors") == "dream"
    assert model_label("influencerai/tiny-avatars") == "influencerai/tiny-avatars"
    assert model_label("sd15") == "sd15"
