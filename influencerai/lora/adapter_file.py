"""Adapter files: what a LoRA, LoHa, LoKr, DoRA or OFT file of any trainer holds, by its header and without torch."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from influencerai.basemodel.weight_file import WeightHeader, read_lora_header
from influencerai.domain.lora_layout import READERS
from influencerai.errors import ModelError

AdapterLayout = Literal["kohya", "diffusers", "peft"]

PEFT_CONFIG = "adapter_config.json"
"""File beside PEFT's own adapter_model.safetensors that holds rank and alpha."""
PEFT_PREFIX = "base_model.model."
APPLIED_KINDS = frozenset({"LoRA"})
"""Kinds that can be sampled here. diffusers leaves out the magnitudes of a DoRA and supports no other kind."""

_PART = re.compile(
    r"\.(?P<part>lora_(?:down|up|mid|A|B|embedding_A|embedding_B|magnitude_vector)"
    r"|(?:\w+_lora|lora|lora_linear_layer)\.(?:down|up)"
    r"|hada_[wt]\w+|lokr_[wt]\w*|oft_\w+|dora_scale|diff|diff_b|a1|a2|b1|b2|on_input|w_norm|b_norm|alpha|scalar)"
    r"(?:\.\w+)?(?:\.weight)?$"
)
_KINDS = (
    ("OFT", re.compile(r"oft_")),
    ("LoHa", re.compile(r"hada_")),
    ("LoKr", re.compile(r"lokr_")),
    ("GLoRA", re.compile(r"[ab][12]$")),
    ("IA3", re.compile(r"on_input$")),
    ("LoCon with a core (lora_mid)", re.compile(r"lora_mid$")),
    ("DoRA", re.compile(r"dora_scale|lora_magnitude_vector")),
    ("LoRA", re.compile(r"lora_|_lora|^lora|linear_layer")),
    ("full difference", re.compile(r"diff|w_norm|b_norm")),
)
"""Kind of a module by its parts, the most special first."""
_RANK_PARTS = re.compile(r"(lora_down|lora_A|lora\.down|_layer\.down|hada_w1_b|lokr_w[12]_b)$")
_COMPONENTS = (
    ("text_encoder_2", re.compile(r"lora_te2_|text_encoder_2\.")),
    ("text_encoder", re.compile(r"lora_te1?_|text_encoder\.|(base_model\.model\.)?(text_model|encoder\.layers)\.")),
    (
        "unet",
        re.compile(r"lora_unet_|lycoris_|unet\.|(model\.)?diffusion_model\.|base_model\.model\.|(down|up|mid)_block"),
    ),
)
_TARGETS = (
    ("attention", re.compile(r"attn\d?[._](processor\.)?(to_(q|k|v|out)|(q|k|v|out)_proj)|to_[qkv]$")),
    ("feed-forward", re.compile(r"ff[._]net|mlp[._]fc")),
    ("projections", re.compile(r"proj_(in|out)$")),
    ("convolutions", re.compile(r"conv|in_layers|out_layers|skip_connection|_op$|emb_layers|time_emb|samplers")),
)
_CROSS_ATTENTION = re.compile(r"attn2[._](processor\.)?to_[kv]")
_FAMILY_OF_WIDTH = {768: "sd15", 1024: "Stable Diffusion 2", 2048: "sdxl"}
_OTHER_FAMILIES = (("double_blocks", "FLUX"), ("joint_blocks", "Stable Diffusion 3"))
_NUMBERS = {"F64": "<d", "F32": "<f", "F16": "<e"}
_LYCORIS = "ComfyUI, AUTOMATIC1111 and Forge; diffusers and `influencerai sample` do not apply it"
_PEFT_READERS = "PEFT and `influencerai sample`, with adapter_config.json beside it"


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """One adapter file."""

    header: WeightHeader
    layout: AdapterLayout
    modules: Mapping[str, str]
    """Kind ("LoRA", "LoHa", ...) by the module's name in the file."""
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    """Alphas that occur, in order; empty where a file has none, which means alpha = rank."""
    family: str | None

    @property
    def kind(self) -> str:
        """The kind of most modules."""
        return Counter(self.modules.values()).most_common(1)[0][0]

    @property
    def components(self) -> dict[str, int]:
        """Modules by component."""
        return dict(sorted(Counter(component_of(module) for module in self.modules).items()))

    @property
    def targets(self) -> dict[str, int]:
        """Modules by what they do."""
        return dict(Counter(_target(module) for module in self.modules))

    @property
    def readers(self) -> str:
        """Programs that apply the file."""
        if self.layout == "peft":
            return _PEFT_READERS
        return READERS[self.layout] if self.kind in APPLIED_KINDS else _LYCORIS


def read_adapter(path: Path) -> AdapterFile:
    """Describe an adapter file of any trainer.

    Raises:
        ModelError: it cannot be read, is no .safetensors file, or holds no adapter.
    """
    header = read_lora_header(path)
    parts: dict[str, dict[str, str]] = {}
    for name in header.tensors:
        if match := _PART.search(name):
            parts.setdefault(name[: match.start()], {})[match["part"]] = name
    modules = {module: kind for module, found in parts.items() if (kind := _kind(found))}
    if not modules:
        raise ModelError(f"{path} is no LoRA.", remedy="Give a LoRA's .safetensors file.")
    layout = _layout(header)
    peft = peft_config(path) if layout == "peft" else {}
    stated = [float(peft["lora_alpha"])] if isinstance(peft.get("lora_alpha"), int | float) else _alphas(header)
    return AdapterFile(
        header=header,
        layout=layout,
        modules=modules,
        ranks=tuple(sorted({rank for found in parts.values() if (rank := _rank(header, found))})),
        alphas=tuple(sorted(set(stated))),
        family=_family(header, parts),
    )


def peft_config(path: Path) -> dict[str, Any]:
    """PEFT's configuration beside its adapter_model.safetensors; empty where there is none that can be read."""
    try:
        document = json.loads((path.parent / PEFT_CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def component_of(module: str) -> str:
    """The component that a module of an adapter file belongs to, or "unknown"."""
    return next((component for component, pattern in _COMPONENTS if pattern.match(module)), "unknown")


def _kind(parts: Mapping[str, str]) -> str | None:
    """The kind of a module with these parts; None for an alpha alone."""
    return next((kind for kind, pattern in _KINDS if any(pattern.search(part) for part in parts)), None)


def _layout(header: WeightHeader) -> AdapterLayout:
    if any(name.startswith(PEFT_PREFIX) for name in header.tensors):
        return "peft"
    dotted = any(re.search(r"\.lora_[AB]\.|\.(down|up)\.weight$", name) for name in header.tensors)
    return "diffusers" if dotted and not header.has("lora_") else "kohya"


def _rank(header: WeightHeader, parts: Mapping[str, str]) -> int | None:
    name = next((name for part, name in parts.items() if _RANK_PARTS.search(part)), None)
    return header.shapes[name][0] if name and header.shapes[name] else None


def _alphas(header: WeightHeader) -> list[float]:
    found = []
    for name, entry in header.tensors.items():
        if name.endswith(".alpha") and entry.end - entry.begin <= 8:
            data = header.read_bytes(name)
            if entry.dtype == "BF16":
                found.append(float(struct.unpack("<f", b"\0\0" + data)[0]))
            elif entry.dtype in _NUMBERS:
                found.append(float(struct.unpack(_NUMBERS[entry.dtype], data)[0]))
    if not found:
        document = header.metadata.get("lora_adapter_metadata", "")
        found = [float(number) for number in re.findall(r'lora_alpha": ([0-9.]+)', document)]
    return found


def _family(header: WeightHeader, parts: Mapping[str, Mapping[str, str]]) -> str | None:
    stated = header.metadata.get("ss_base_model_version") or header.metadata.get("modelspec.architecture") or ""
    if stated.startswith(("sdxl", "stable-diffusion-xl")):
        return "sdxl"
    if stated.startswith(("sd_v1", "sd_1", "stable-diffusion-v1")):
        return "sd15"
    if stated:
        return stated
    for module, found in parts.items():
        down = next((name for part, name in found.items() if part in ("lora_down", "lora_A")), None)
        if down and _CROSS_ATTENTION.search(module):
            return _FAMILY_OF_WIDTH.get(header.shapes[down][-1])
    for mark, family in _OTHER_FAMILIES:
        if any(mark in module for module in parts):
            return family
    return "sdxl" if any(component_of(module) == "text_encoder_2" for module in parts) else None


def _target(module: str) -> str:
    return next((target for target, pattern in _TARGETS if pattern.search(module)), "others")
