"""Stage 2: a CLIP tokenizer with byte-pair merges of its own, learned from the captions."""

import json
import random
import shutil
from pathlib import Path

from tokenizers import Tokenizer, trainers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from influencerai.demo.avatars import Avatar
from influencerai.demo.captions import ALL, compose

VOCABULARY = 1280
MAX_TOKENS = 48
"""Length of a prompt in tokens, start and end included; the longest caption has 47."""
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(folder: Path, *, seed: int, captions: int = 20_000) -> CLIPTokenizer:
    """The tokenizer of `folder`, made first if it is not there yet.

    Its vocabulary has CLIP's order: 256 bytes, 256 bytes that end a word, the merges, start, end. Names are left out
    of the corpus: random letters earn no merges.
    """
    if not (folder / "tokenizer_config.json").exists():
        rng = random.Random(seed)
        subjects = ("a photo of a woman", "portrait of a man", "person", "picture of a girl", "drawing of a boy",
                    "avatar of a character", "face")  # fmt: skip
        corpus = [compose(Avatar.random(rng), ALL, rng, subject=rng.choice(subjects)).text for _ in range(captions)]
        _write_clip_tokenizer(corpus, folder)
    return CLIPTokenizer.from_pretrained(folder)


def _write_clip_tokenizer(corpus: list[str], folder: Path) -> None:
    alphabet = sorted(ByteLevel.alphabet())
    symbols = alphabet + [symbol + "</w>" for symbol in alphabet]
    learner = Tokenizer(BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    clip = CLIPTokenizer()._tokenizer
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix="</w>",
        continuing_subword_prefix="", show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(corpus, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = merges[: VOCABULARY - len(symbols) - 2]
    vocabulary = [*symbols, *("".join(pair) for pair in merges), START, END]
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    numbered = {symbol: number for number, symbol in enumerate(vocabulary)}
    (part / "vocab.json").write_text(json.dumps(numbered, ensure_ascii=False))
    lines = [f"{left} {right}" for left, right in merges]
    (part / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {**special, "model_max_length": MAX_TOKENS, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (part / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (part / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    part.rename(folder)
