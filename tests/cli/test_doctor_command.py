from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import huggingface_hub.constants
import pytest

from influencerai.doctor import diagnose
from influencerai.packages import TRAIN_PACKAGES
from influencerai.settings import Settings
from tests.cli.conftest import Invoke, json_lines


def test_the_packages_are_those_of_the_train_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extra = project["project"]["optional-dependencies"]["train"]
    assert set(TRAIN_PACKAGES) == {re.split(r"[^\w.-]", text)[0] for text in extra}


def test_versions_devices_and_models_are_those_that_are_here(project: Path) -> None:
    found = diagnose(Settings(root=project))
    assert found.versions["torch"] == importlib.metadata.version("torch")
    assert None not in found.versions.values()
    assert found.devices[0]["kind"] == "cpu"
    assert found.devices[0]["memoryBytes"] > 2**30
    small = {"name": "small", "path": str(project / "models" / "small"), "family": "sd15", "fault": None}
    assert small in found.models


def test_settings_are_shown_with_their_origin(invoke: Invoke) -> None:
    result = invoke("doctor", "--json")
    settings = {item["name"]: item for item in json_lines(result.stdout)[0]["settings"]}
    assert settings["threads"] == {"name": "threads", "value": "1", "origin": "INFLUENCERAI_THREADS"}
    assert settings["cache_max_gib"]["origin"] == "default"


def test_it_is_short_and_honest(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("INFLUENCERAI_DEVICE", "auto")
    monkeypatch.setattr("influencerai.doctor.gpu_names", list)
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) <= 15
    output = " ".join(result.stdout.split())
    assert "There is no GPU: trainings use the CPU with 1 threads." in output
    for alias in ("sd15", "sdxl"):
        assert f"{alias} is not here. Run: influencerai models get {alias}" in output
    assert "Trainings of the models that are here work. sd15 and sdxl: not here." in output
    assert "Everything that a training needs" not in output
    (document,) = json_lines(invoke("doctor", "--json").stdout)
    assert {note["message"] for note in document["notes"]} >= {"sd15 is not here.", "sdxl is not here."}
    assert document["ok"] is True


def test_a_build_for_cpus_beside_a_gpu_is_a_problem(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("influencerai.doctor.gpu_names", lambda: ["NVIDIA H100"])
    found = diagnose(Settings(root=project), load_torch=False)
    is_cpu_build = str(found.versions["torch"]).endswith("+cpu")
    assert any("cannot use NVIDIA H100" in problem.message for problem in found.problems) == is_cpu_build
    assert any(device["kind"] == "cuda" for device in found.devices) != is_cpu_build


def test_the_text_has_every_section(invoke: Invoke, project: Path) -> None:
    output = invoke("doctor", "--all").stdout
    for title in ("Versions", "Devices", "Settings", "Models", "Folders"):
        assert title in output.splitlines()
    assert re.search(r"threads +1 +INFLUENCERAI_THREADS", output)


def test_a_folder_that_cannot_be_written_to_is_a_problem(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    found = diagnose(Settings(root=project, cache_dir=file / "cache"))
    assert any(
        str(file) in problem.message and "INFLUENCERAI_CACHE_DIR" in problem.remedy for problem in found.problems
    )


@pytest.mark.slow
def test_a_gpu_that_is_asked_for_and_not_there_is_a_problem(project: Path) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "INFLUENCERAI_DEVICE": "cuda"}
    command = [sys.executable, "-m", "influencerai", "doctor"]
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "INFLUENCERAI_DEVICE=auto" in result.stdout


def test_a_bad_setting_is_a_usage_error(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCERAI_DEVICE", "tpu")
    result = invoke("doctor")
    assert result.exit_code == 2
    assert "INFLUENCERAI_DEVICE" in result.stderr
