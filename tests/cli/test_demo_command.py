from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from influencerai.demo.characters import list_characters, write_character
from influencerai.demo.spec import DEMO_PROMPTS, demo_config
from tests.cli.conftest import Invoke, json_lines


def test_the_prompts_have_the_trigger_and_are_in_no_training_set(tmp_path: Path) -> None:
    for name in list_characters():
        write_character(name, tmp_path / name)
    captions = {path.read_text("utf-8").strip() for path in tmp_path.rglob("*.txt")}
    assert len(captions) > 20
    assert captions.isdisjoint(DEMO_PROMPTS)
    assert all("ohwx" in prompt for prompt in DEMO_PROMPTS)


def test_the_spec_shows_every_picture_a_hundred_times_and_has_no_warnings() -> None:
    config = demo_config()
    assert config.epochs * config.options.repeats == 100
    assert config.options.trigger_word == "ohwx"
    assert config.warnings == []


def test_an_unknown_character_is_refused_before_anything_is_written(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("demo", "--character", "nobody", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_demo_keeps_edited_captions(invoke: Invoke, tmp_path: Path) -> None:
    write_character("ava", tmp_path / "datasets/ava")
    caption = tmp_path / "datasets/ava/ava_01.txt"
    caption.write_text("ohwx, in my own words")
    (tmp_path / ".influencerai").write_text("ends the demo before it trains")
    result = invoke("demo", "--out", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path / '.influencerai'}" in result.stderr
    assert "mistake of InfluencerAI" not in result.stderr
    assert caption.read_text() == "ohwx, in my own words"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_trains_draws_and_says_where_everything_is(invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("demo", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    *events, last = json_lines(result.stdout)
    assert last["character"] == list_characters()[0]
    assert all(Path(last[name]).is_file() for name in ("loraPath", "grid", "lossPlot"))
    losses = [event["loss"] for event in events if event["type"] == "step"]
    assert sum(losses[-50:]) < sum(losses[:50])
    with Image.open(last["grid"]) as image:
        assert image.width > 4 * 128
        assert image.height > len(DEMO_PROMPTS) * 128
