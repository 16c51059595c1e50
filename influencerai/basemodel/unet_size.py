"""UNet size: image sizes and parameters of a base model, from its configurations and weight headers."""

from __future__ import annotations

import math

from influencerai.basemodel.base_model import BaseModel
from influencerai.basemodel.diffusers_folder import weight_files
from influencerai.basemodel.quantization import component_tensors
from influencerai.basemodel.single_file import PREFIXES
from influencerai.basemodel.weight_file import read_header


def side_multiple(base: BaseModel) -> int:
    """Pixels that every side of an image must be a multiple of, so that no level rounds a side.

    The VAE's factor times the UNet's.
    """
    return int(2 ** (_halvings(base, "vae") + _halvings(base, "unet")))


def own_size(base: BaseModel) -> int:
    """The model's native image size, in pixels per side."""
    return int(base.config("unet")["sample_size"]) * int(2 ** _halvings(base, "vae"))


def count_parameters(base: BaseModel) -> int:
    """Parameters of the UNet; no weights are read.

    Raises:
        ModelError: its files are missing or damaged.
    """
    if base.layout == "single_file":
        files, prefix = [base.path], PREFIXES[base.family]["unet"]
    else:
        files, prefix = weight_files(base.path, "unet")[1], ""
    headers = [read_header(file) for file in files]
    weights = component_tensors(headers, "unet", prefix=prefix).weights
    return sum(math.prod(header.shapes[name]) for header in headers for name in weights & header.shapes.keys())


def _halvings(base: BaseModel, component: str) -> int:
    """The number of times that a component halves the sides of its input."""
    return len(base.config(component)["block_out_channels"]) - 1
