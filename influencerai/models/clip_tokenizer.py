"""CLIP's tokenizer, from a model's own files or, for single-file models, from the merges that we ship."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from transformers import CLIPTokenizer

from influencerai.basemodel.components import CONFIGS, VOCABULARIES
from influencerai.models.model_components import damage_errors

MERGES = CONFIGS / "clip_tokenizer/merges.txt.gz"
"""CLIP's 48,894 byte-pair merges, one a line; see the NOTICE beside the file."""

_SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")
_SETTINGS = ("bos_token", "eos_token", "unk_token", "pad_token", "model_max_length")


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a model's `tokenizer` folder.

    A folder that holds nothing but `tokenizer_config.json` gets CLIP's vocabulary, which the text encoders of
    SD1.5 and SDXL share.

    Raises:
        ModelError: a file is damaged.
    """
    with damage_errors(folder):
        tokenizer = _load(folder)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise TypeError("model_max_length is no number")
    return tokenizer


def _load(folder: Path) -> CLIPTokenizer:
    if any((folder / name).is_file() for name in VOCABULARIES):
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        return tokenizer
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocabulary, merges = _clip_vocabulary()
    chosen = {name: settings[name] for name in _SETTINGS if name in settings}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, **chosen)


@cache
def _clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's 49,408 tokens with their ids, and its merges.

    The order of the tokens is that of openai/CLIP's simple_tokenizer.py: the 256 letters of the byte-level
    alphabet, the same at the end of a word, one token per merge, the two special ones.
    """
    lines = gzip.decompress(MERGES.read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, right in (line.split(" ") for line in lines)]
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(left + right for left, right in merges),
        *_SPECIAL_TOKENS,
    ]
    return {token: index for index, token in enumerate(tokens)}, merges
