"""Base models are recognised in a process that has no torch, and no client of the hub."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "numpy", "huggingface_hub")


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_recognising_a_local_model_loads_nothing_heavy() -> None:
    found = run_python(f"""
        import sys
        from influencerai.basemodel import find_base_model, unet_size
        from influencerai.settings import Settings
        base = find_base_model("influencerai/tiny-avatars", models_dirs=Settings().models_dirs, as_path=False)
        base.fingerprint(), unet_size.count_parameters(base)
        print(base.family, sorted(set({HEAVY}) & set(sys.modules)))
    """)
    assert found == "sd15 []"


@pytest.mark.slow
def test_the_import_is_quick() -> None:
    code = "import time; t = time.process_time(); import influencerai.basemodel; print(time.process_time() - t)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.5


def test_without_the_hubs_client_local_models_are_found_and_the_hub_is_not_asked() -> None:
    found = run_python("""
        import sys; sys.modules["huggingface_hub"] = None
        from influencerai.basemodel import find_base_model
        from influencerai.errors import InfluencerAIError
        from influencerai.settings import Settings
        folders = Settings().models_dirs
        print(find_base_model("influencerai/tiny-avatars", models_dirs=folders).family)
        for allowed in (False, True):
            try: find_base_model("org/name", models_dirs=folders, allow_download=allowed)
            except InfluencerAIError as error: print(error.code, error.remedy)
    """).splitlines()
    assert found[0] == "sd15"
    assert found[1].startswith("model Copy the model to ")
    assert found[2] == "dependency_missing Run: pip install 'influencerai[train]'."
