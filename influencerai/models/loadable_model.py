"""LoadableModel: a base model whose components can be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from influencerai.basemodel import BaseModel, find_base_model
from influencerai.basemodel.components import CONFIGS
from influencerai.models import diffusers_folder, single_file
from influencerai.models.clip_tokenizer import load_tokenizer
from influencerai.models.model_components import MODULES


@dataclass(frozen=True, kw_only=True)
class LoadableModel(BaseModel):
    """A base model that was found and recognised; no weights are loaded yet."""

    def load(self, component: str, *, dtype: torch.dtype = torch.float32) -> Any:
        """One component ("unet", "vae", "text_encoder", "tokenizer", ...), in eval mode, on the CPU.

        Raises:
            ModelError: the family has no such component, or its files cannot be read or lack a tensor.
        """
        self.check_component(component)
        if component not in MODULES:
            return load_tokenizer(self.configs / component)
        if self.layout == "diffusers":
            return diffusers_folder.load_module(self.path, component, dtype=dtype)
        return single_file.load_module(
            self.path, component, family=self.family, configs=self.configs.parent, dtype=dtype
        )


def find_loadable_model(
    name: str,
    *,
    models_dirs: Sequence[Path],
    allow_download: bool = False,
    as_path: bool = True,
    configs: Path = CONFIGS,
) -> LoadableModel:
    """`find_base_model`, and every tensor is looked for: a single file's before it is loaded, and what is not used.

    Raises:
        ModelError: as `find_base_model`, or a tensor is missing or of another shape.
    """
    found = find_base_model(
        name, models_dirs=models_dirs, allow_download=allow_download, as_path=as_path, configs=configs
    )
    if found.layout == "single_file":
        unused = single_file.check_tensors(found.path, family=found.family, configs=configs)
    else:
        unused = diffusers_folder.check_tensors(found.path, family=found.family)
    return LoadableModel(**vars(found) | {"warnings": (*found.warnings, *unused)})
