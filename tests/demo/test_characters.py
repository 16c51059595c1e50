"""What ships with the package: the sample sets and the embedded model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from influencerai.demo.captions import BEARD, GLASSES, HAIR_COLOR, SKIN, TRIGGER
from influencerai.demo.characters import list_characters, model_path, write_character
from influencerai.errors import DatasetError


def test_ava_and_leo_ship() -> None:
    assert list_characters() == ["ava", "leo"]


@pytest.mark.parametrize("name", ["ava", "leo"])
def test_a_set_is_twenty_captioned_pictures(name: str, tmp_path: Path) -> None:
    pictures = write_character(name, tmp_path / "set")
    assert len(pictures) == 20
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (128, 128)
        assert path.with_suffix(".txt").read_text().startswith(f"{TRIGGER} person")


@pytest.mark.parametrize("name", ["ava", "leo"])
def test_captions_say_nothing_about_who_it_is(name: str, tmp_path: Path) -> None:
    write_character(name, tmp_path)
    identity_words = {"hair", "skin", "beard", "glasses", *HAIR_COLOR}
    identity_words |= {phrase for words in (BEARD, GLASSES, SKIN) for value in words.values() for phrase in value}
    # Colours of hair are also colours of clothes and backgrounds.
    identity_words -= {"black", "brown", "pink", "blue"}
    for path in tmp_path.glob("*.txt"):
        assert not [word for word in identity_words if word in path.read_text()]


def test_writing_a_set_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    write_character("ava", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_changed_files_stay_and_are_named(tmp_path: Path) -> None:
    write_character("ava", tmp_path / "set")
    assert len(write_character("ava", tmp_path / "set")) == 20
    caption, picture = tmp_path / "set/ava_01.txt", tmp_path / "set/ava_02.png"
    caption.write_text("my own words")
    picture.rename(tmp_path / "mine.png")
    picture.symlink_to(tmp_path / "mine.png")
    (tmp_path / "set/ava_03.txt").unlink()
    with pytest.raises(DatasetError, match=r"ava_01\.txt, ava_02\.png\."):
        write_character("ava", tmp_path / "set")
    assert caption.read_text() == "my own words"
    assert picture.is_symlink()
    assert not (tmp_path / "set/ava_03.txt").exists()


def test_an_unknown_character_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are ava, leo"):
        write_character("bob", tmp_path)


def test_the_model_is_a_stable_diffusion_folder_of_at_most_25_mb() -> None:
    index = json.loads((model_path() / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    weights = list(model_path().rglob("*.safetensors"))
    assert {path.parent.name for path in weights} == {"text_encoder", "unet", "vae"}
    assert sum(path.stat().st_size for path in model_path().rglob("*") if path.is_file()) <= 25_000_000
    for path in weights:
        with safe_open(path, framework="numpy") as tensors:
            assert {tensors.get_slice(key).get_dtype() for key in tensors.keys()} == {"F16"}  # noqa: SIM118


def test_looking_at_the_sets_needs_no_torch_and_no_renderer() -> None:
    code = (
        "import sys; from influencerai.demo.characters import list_characters; list_characters();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'python_avatars', 'resvg_py')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
