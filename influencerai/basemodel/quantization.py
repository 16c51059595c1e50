"""Stored weights: which tensors of a component a loader uses, which scale others, and which storage is refused.

Applied: fp8 with one scale per tensor or per output channel, as ComfyUI names and multiplies them (`scale_weight`
and `weight_scale`). Every other quantisation is refused by its name, and so is an adapter that nobody merged:
weights without what belongs to them would train on garbage in silence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from influencerai.basemodel.weight_file import WeightHeader, is_adapter_tensor
from influencerai.errors import ModelError
from influencerai.files.safetensors_file import TensorEntry

_FP8 = frozenset({"F8_E4M3", "F8_E5M2"})
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_PARAMETERS = frozenset({"weight", "bias", "in_proj_weight", "in_proj_bias", "positional_embedding", "text_projection"})
_WITHOUT_EFFECT = frozenset({"position_ids", "logit_scale", "input_scale", "scale_input", "comfy_quant", "scaled_fp8"})
"""Tensors that change no weight: CLIP's constants, scales of activations, and marks that are read for themselves."""
_SCHEMES = (
    (re.compile(r"bitsandbytes__(nf4|fp4)$"), "bitsandbytes {}"),
    (re.compile(r"\.(?:SCB|weight_format)$"), "bitsandbytes int8"),
    (re.compile(r"\.(?:nested_)?(?:absmax|quant_map)$|\.quant_state\b"), "bitsandbytes"),
    (re.compile(r"\.(?:wscales|wcscales|wtscale|smooth_factor|smooth_factor_orig)$"), "SVDQuant"),
    (re.compile(r"\.(?:qweight|qzeros|g_idx)$"), "GPTQ or AWQ"),
    (re.compile(r"\.weight_scale_inv$"), "fp8 with a scale per block"),
    (re.compile(r"\.weight_scale_2$"), "nvfp4"),
    (re.compile(r"\.weight_(?:packed|zero_point|shape|g_idx)$|\.(?:zero_point|zeros)$"), "integers with a zero point"),
    (re.compile(r"\.pre_quant_scale$"), "fp8 with smoothed channels"),
)
_FORMATS = frozenset({"float8_e4m3fn", "float8_e5m2"})
_FORMAT_OPTIONS = frozenset({"format", "full_precision_matrix_mult"})
_FORMAT_METADATA = "_quantization_metadata"
_MAX_FORMAT_BYTES = 10_000
_REMEDY = "Use the model in float16, bfloat16 or float32, or in fp8 with one scale per weight."


@dataclass(frozen=True, kw_only=True)
class ComponentTensors:
    """The tensors of one component, by their names in the file."""

    weights: frozenset[str]
    scales: Mapping[str, str]
    """Name of the scale by the name of the fp8 weight that it belongs to."""
    unused: tuple[str, ...]
    """Tensors that no loader uses, in order."""


def component_tensors(headers: Sequence[WeightHeader], component: str, *, prefix: str = "") -> ComponentTensors:
    """Sort the tensors of `headers` whose names begin with `prefix` by their use.

    Raises:
        ModelError: the component is quantised in a way that is not read, or holds an adapter.
    """
    entries = {name: entry for header in headers for name, entry in header.tensors.items() if name.startswith(prefix)}
    place = headers[0].path if len(headers) == 1 else headers[0].path.parent
    fault = _Fault(place, component)
    _check_schemes(entries, fault)  # first, since SVDQuant has low-rank factors of its own
    if adapters := [name for name in entries if is_adapter_tensor(name.removeprefix(prefix))]:
        fault.adapter(adapters)
    _check_formats(headers, entries, fault)
    scales = _scales(entries, fault)
    weights = frozenset(name for name in entries if _leaf(name) in _PARAMETERS)
    _check_weights(entries, weights, scales, fault)
    used = {*weights, *scales.values()}
    unused = sorted(name for name in entries if name not in used and _leaf(name) not in _WITHOUT_EFFECT)
    return ComponentTensors(weights=weights, scales=scales, unused=tuple(unused))


def unused_warning(path: Path, component: str, names: Iterable[str]) -> list[str]:
    """A warning about tensors that are not used; empty where there are none."""
    found = sorted(names)
    if not found:
        return []
    return [f"{path}: {len(found)} tensors of its {component} are not used, such as '{found[0]}'."]


@dataclass(frozen=True)
class _Fault:
    """Raises what is wrong with one component."""

    path: Path
    component: str

    def quantised(self, scheme: str, names: Sequence[str]) -> NoReturn:
        raise ModelError(
            f"{self.path} is quantised ({scheme}), which is not supported: {len(names)} tensors of its "
            f"{self.component}, such as '{names[0]}'.",
            remedy=_REMEDY,
        )

    def adapter(self, names: Sequence[str]) -> NoReturn:
        raise ModelError(
            f"{self.path} holds an adapter that is not merged: {len(names)} tensors inside its {self.component}, such "
            f"as '{names[0]}'.",
            remedy="Merge it into the weights with the tool that added it, or use the model without it.",
        )


def _check_schemes(entries: Mapping[str, TensorEntry], fault: _Fault) -> None:
    for pattern, scheme in _SCHEMES:
        found = [(name, match) for name in entries if (match := pattern.search(name))]
        if found:
            fault.quantised(scheme.format(*found[0][1].groups()), [name for name, _ in found])


def _check_formats(headers: Sequence[WeightHeader], entries: Mapping[str, TensorEntry], fault: _Fault) -> None:
    """Refuse a format of ComfyUI's that is not fp8 by one scale; a layer states its own in a tensor or the metadata."""
    for header in headers:
        stated = _stated_formats(header)
        for name, entry in header.tensors.items():
            if name in entries and _leaf(name) == "comfy_quant" and entry.end - entry.begin <= _MAX_FORMAT_BYTES:
                stated[name.removesuffix(".comfy_quant")] = _parsed(header.read_bytes(name))
        for layer, settings in stated.items():
            if f"{layer}.weight" not in entries:
                continue
            fields = settings if isinstance(settings, dict) else {}
            name = str(fields.get("format", "an unknown format"))
            if name not in _FORMATS or not fields.keys() <= _FORMAT_OPTIONS:
                fault.quantised(name, [f"{layer}.weight"])
            if not {f"{layer}.weight_scale", f"{layer}.scale_weight"} & entries.keys():
                fault.quantised(f"{name} without its scale", [f"{layer}.weight"])


def _stated_formats(header: WeightHeader) -> dict[str, object]:
    document = _parsed(header.metadata.get(_FORMAT_METADATA, "{}").encode())
    layers = document.get("layers") if isinstance(document, dict) else None
    return dict(layers) if isinstance(layers, dict) else {}


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _scales(entries: Mapping[str, TensorEntry], fault: _Fault) -> dict[str, str]:
    """The scales by the weights that they belong to."""
    found: dict[str, str] = {}
    for name, entry in entries.items():
        weight = _scaled_weight(name)
        if weight is None:
            continue
        target = entries.get(weight)
        if target is None or target.dtype not in _FP8 or entry.dtype not in _FLOATS or weight in found:
            fault.quantised("a scale that no fp8 weight goes with", [name])
        rows = target.shape[:1]
        if math.prod(entry.shape) != 1 and (entry.shape[:1] != rows or math.prod(entry.shape[1:]) != 1):
            fault.quantised("fp8 with a scale per block", [name])
        found[weight] = name
    if not found and any(_leaf(name) == "scaled_fp8" for name in entries):
        weights = [name for name, entry in entries.items() if entry.dtype in _FP8 and _leaf(name) in _PARAMETERS]
        if weights:
            fault.quantised("scaled fp8 without its scales", weights)
    return found


def _scaled_weight(name: str) -> str | None:
    """The weight that a scale of this name belongs to, or None where the name is no scale's."""
    module, _, leaf = name.rpartition(".")
    if leaf == "scale_weight":
        return f"{module}.weight"
    parameter = leaf.removesuffix("_scale")
    return f"{module}.{parameter}" if parameter != leaf and parameter in _PARAMETERS else None


def _check_weights(
    entries: Mapping[str, TensorEntry], weights: Iterable[str], scales: Mapping[str, str], fault: _Fault
) -> None:
    """Refuse weights that are no floating-point numbers, and fp8 weights with companions that are not understood."""
    for name in sorted(weights):
        if entries[name].dtype not in _FLOATS | _FP8:
            same = [other for other in weights if entries[other].dtype == entries[name].dtype]
            fault.quantised(entries[name].dtype.lower(), sorted(same))
    modules = {name.rpartition(".")[0] for name in weights if entries[name].dtype in _FP8}
    known = {*weights, *scales.values()}
    strange = [
        name
        for name in entries
        if name not in known and _leaf(name) not in _WITHOUT_EFFECT and _is_beside(name, modules)
    ]
    if strange:
        fault.quantised("fp8 with tensors that are not understood", strange)


def _is_beside(name: str, modules: Iterable[str]) -> bool:
    """Whether a tensor lies in one of `modules`, or below one of its weights."""
    module = name.rpartition(".")[0]
    return module in modules or module.rpartition(".")[0] in modules


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
