"""Hints: what to do today, for words that users of other programs try as commands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_HINTS = {
    "ui gui webui web studio app window start launch open": (
        "There is no window yet: `influencerai serve` has a page of all requests at http://127.0.0.1:3001/api, "
        "notebooks show pictures and the loss, and `influencerai sample` compares checkpoints in one picture."
    ),
    "caption captions tag tagger autocaption label": (
        "Captions are text files beside the pictures (me.jpg, me.txt); `influencerai dataset check` names pictures "
        "that have none, and --trigger-word stands in for theirs."
    ),
    "merge resize convert extract prune": (
        "There is no such tool for LoRA files yet; `influencerai sample --strength` shows a file at any strength."
    ),
    "info inspect show metadata": "`influencerai lora info FILE` shows what is in a LoRA file.",
    "model download pull": "`influencerai models` lists base models and downloads one.",
    "resume continue restart": (
        "`influencerai train DATASET ... --resume` continues an interrupted run of the same output folder."
    ),
    "stop cancel": "Ctrl-C ends a training resumably; `influencerai jobs cancel ID` ends a job of a server.",
    "status list ps logs watch": "`influencerai jobs` lists and watches the jobs of a server.",
    "generate draw test preview compare plot grid xyz infer txt2img": (
        "`influencerai sample` draws with LoRA files and compares them."
    ),
    "preset presets config init": "`influencerai train --help` has the presets and all options.",
    "install setup version env": "`influencerai doctor` shows what is installed and what is missing.",
    "upload images check validate": "`influencerai dataset check FOLDER` checks pictures and captions.",
    "lora finetune fit": "`influencerai train DATASET --model MODEL` trains a LoRA.",
}
"""By the words, separated by spaces."""
_BY_WORD = {word: hint for words, hint in _HINTS.items() for word in words.split()}


def hint_for(word: str, *, commands: Iterable[str]) -> str:
    """A sentence for a word that is no command; empty where none fits."""
    if hint := _BY_WORD.get(word.lower()):
        return hint
    near = difflib.get_close_matches(word.lower(), list(commands), n=1)
    return f"Did you mean '{near[0]}'?" if near else ""
