"""Sizes that are read from configurations and headers, against the modules that torch would build."""

from __future__ import annotations

from pathlib import Path

import pytest

from influencerai.basemodel import find_base_model, unet_size
from influencerai.basemodel.components import CLASSES, COMPONENTS, CONFIGS, read_config
from influencerai.models.family import load_family
from influencerai.models.loadable_model import find_loadable_model
from influencerai.models.model_components import MODULES, empty_module
from influencerai.settings import Settings
from tests.original_layout import original_tensors, save_hollow_file
from tests.small_models import small_sd15, small_sdxl


@pytest.mark.slow
def test_folders(tmp_path: Path) -> None:
    folders = [small_sd15(tmp_path / "sd15"), small_sdxl(tmp_path / "sdxl")]
    folders.append(Settings().models_dirs[1] / "influencerai/tiny-avatars")
    for folder, own_size in zip(folders, (128, 128, 128), strict=True):
        base = find_loadable_model(str(folder), models_dirs=[])
        unet = load_family(base.family).empty_denoiser(base)
        assert unet_size.count_parameters(base) == sum(parameter.numel() for parameter in unet.parameters())
        assert unet_size.own_size(base) == own_size


@pytest.mark.slow
@pytest.mark.parametrize(("family", "count", "own_size"), [("sd15", 859_520_964, 512), ("sdxl", 2_567_463_684, 1024)])
def test_single_files(family: str, count: int, own_size: int, tmp_path: Path) -> None:
    modules = {
        name: empty_module(name, read_config(CONFIGS / family, name)) for name in COMPONENTS[family] if name in CLASSES
    }
    path = save_hollow_file(original_tensors(family, modules), tmp_path / "model.safetensors")
    base = find_base_model(str(path), models_dirs=[])
    assert (base.family, base.layout) == (family, "single_file")
    assert unet_size.count_parameters(base) == count
    assert unet_size.own_size(base) == own_size


def test_classes_are_those_that_are_loaded() -> None:
    assert {name: module.__name__ for name, module in MODULES.items()} == CLASSES
