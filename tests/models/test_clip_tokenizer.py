from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from influencerai.basemodel.components import CONFIGS
from influencerai.models.clip_tokenizer import MERGES, load_tokenizer
from tests.small_models import small_tokenizer


def test_known_ids() -> None:
    """Ids that OpenAI's tokenizer gives."""
    tokenizer = load_tokenizer(CONFIGS / "sd15/tokenizer")
    assert len(tokenizer) == 49_408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("Hello  WORLD!").input_ids == [49406, 3306, 1002, 256, 49407]
    assert tokenizer("an astronaut riding a horse").input_ids == [49406, 550, 18376, 6765, 320, 4558, 49407]


@pytest.mark.parametrize(
    ("folder", "padding"), [("sd15/tokenizer", 49407), ("sdxl/tokenizer", 49407), ("sdxl/tokenizer_2", 0)]
)
def test_padding(folder: str, padding: int) -> None:
    """OpenCLIP bigG was trained with "!" (id 0) as padding, CLIP-L with the end of text."""
    tokenizer = load_tokenizer(CONFIGS / folder)
    ids = tokenizer(["a cat"], padding="max_length", truncation=True).input_ids[0]
    assert ids == [49406, 320, 2368, 49407, *[padding] * 73]
    assert len(tokenizer("cat " * 100, truncation=True).input_ids) == 77


def test_merges_are_all_of_clips() -> None:
    lines = gzip.decompress(MERGES.read_bytes()).decode().split("\n")
    assert len(lines) == 48_894
    assert (lines[0], lines[-1]) == ("i n", "jeky ll</w>")
    assert (MERGES.parent / "NOTICE").read_text().count("OpenAI") == 2


def test_a_models_own_vocabulary_wins(tmp_path: Path) -> None:
    own = small_tokenizer()
    own.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded("ohwx woman").input_ids == own("ohwx woman").input_ids
    assert len(loaded) == len(own) < 1000
