"""The public names: complete, sorted, and loaded only when they are used."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import influencerai
from influencerai import errors


def run_python(code: str) -> Any:
    """What `code`, run by a fresh interpreter, prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_is_sorted_and_without_duplicates() -> None:
    assert influencerai.__all__ == sorted(set(influencerai.__all__))


def test_every_error_is_public() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.InfluencerAIError)
    }
    assert defined <= set(influencerai.__all__)


def test_type_checkers_see_what_is_loaded_lazily() -> None:
    tree = ast.parse(inspect.getsource(influencerai))
    seen = {
        alias.name
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == set(influencerai.__all__) - {"__version__"}


@pytest.mark.parametrize("name", influencerai.__all__)
def test_every_name_loads_and_is_listed(name: str) -> None:
    assert getattr(influencerai, name) is not None
    assert dir(influencerai) == influencerai.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainr'"):
        influencerai.Trainr  # noqa: B018 - the access itself is what is tested


def test_import_loads_no_third_party_package() -> None:
    loaded = run_python(
        "import json, sys; before = set(sys.modules); import influencerai\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(new - set(sys.stdlib_module_names))))"
    )
    assert loaded == ["influencerai"]


@pytest.mark.slow
def test_the_nouns_load_without_torch() -> None:
    loaded = run_python(
        "import json, sys; from influencerai import LoraConfig, Settings, TrainingSpec, ValidationError\n"
        "print(json.dumps(sorted({'torch', 'diffusers', 'numpy'} & set(sys.modules))))"
    )
    assert loaded == []


def test_without_the_extra_the_trainer_says_what_to_install() -> None:
    found = run_python(
        "import json, sys; sys.modules['torch'] = None\n"
        "import influencerai\n"
        "try: influencerai.Trainer\n"
        "except influencerai.DependencyMissingError as error:\n"
        "    print(json.dumps([error.message, error.remedy]))"
    )
    assert "'torch'" in found[0]
    assert "pip install 'influencerai[train]'" in found[1]
