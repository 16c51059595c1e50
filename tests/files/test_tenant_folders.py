"""Paths in messages that tenants see."""

from __future__ import annotations

from pathlib import Path

import pytest

from influencerai.basemodel import find_base_model
from influencerai.errors import ModelError
from influencerai.files.tenant_folders import TenantFolders
from influencerai.settings import Settings


@pytest.mark.parametrize("models", ["root/models", "elsewhere/models"])
def test_a_missing_model_is_asked_for_in_the_models_folder_wherever_a_machine_has_it(
    models: str, tmp_path: Path
) -> None:
    settings = Settings(root=tmp_path / "root", models_dir=tmp_path / models)
    with pytest.raises(ModelError) as caught:
        find_base_model("sdxl", models_dirs=settings.models_dirs, as_path=False)
    shown = TenantFolders(settings).shown(str(caught.value), tenant="ann")
    assert "\n  models/sdxl.safetensors\n" in shown
    assert "Copy the model to models/stabilityai/stable-diffusion-xl-base-1.0 " in shown
    assert str(tmp_path) not in shown
    assert "site-packages" not in shown
