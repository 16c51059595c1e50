"""The base install: every command says what to install, or does without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, json_lines

BLOCKED = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "matplotlib", "numpy")
INSTALL = "pip install 'influencerai[train]'"


@pytest.fixture
def base_install(tmp_path: Path, project: Path) -> Path:
    """A folder whose sitecustomize makes the packages of the train extra unimportable in every interpreter."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {BLOCKED!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    return tmp_path


def run(folder: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), *sys.path))}
    command = [sys.executable, "-m", "influencerai", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=project, env=environment, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "data/faces", "--model", "small"),
        ("train", "data/faces", "--model", "small", "--dry-run"),
        ("sample", "me.safetensors", "--prompt", "ohwx"),
    ],
)
def test_what_trains_or_draws_names_the_extra(base_install: Path, project: Path, arguments: tuple[str, ...]) -> None:
    done = run(base_install, project, *arguments)
    assert done.returncode == 1
    assert INSTALL in done.stderr
    assert "Traceback" not in done.stderr
    done = run(base_install, project, *arguments, "--json")
    document = json_lines(done.stdout)[-1]
    assert (document["type"], document["code"]) == ("error", "dependency_missing")
    assert INSTALL in document["remedy"]


def test_a_dataset_is_checked(base_install: Path, project: Path) -> None:
    done = run(base_install, project, "dataset", "check", "data/faces", "--resolution", "128")
    assert done.returncode == 0, done.stderr
    assert "3 images" in done.stdout


def test_doctor_names_what_is_missing_and_the_command(base_install: Path, project: Path) -> None:
    done = run(base_install, project, "doctor", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["versions"]["torch"] is None
    assert document["devices"] == []
    missing = [problem for problem in document["problems"] if problem["remedy"] == INSTALL]
    assert len(missing) == 1
    assert all(name in missing[0]["message"] for name in BLOCKED)


UNUSABLE = (
    (("train", "data/absent", "--model", "small"), 1, "data/absent cannot be trained on"),
    (("train", "data/faces", "--model", "smal"), 1, "There is no base model 'smal'"),
    (("train", "data/faces", "--model", "small", "--set", "epohcs=3"), 2, "did you mean 'epochs'"),
    (("train", "data/faces", "--model", "small", "--output-path", "data/faces/00.png/x"), 1, "Not a directory"),
    (("train", "data/empty", "--model", "small"), 1, "data/empty cannot be trained on"),
    (("train", "data/absent", "--model", "small", "--dry-run"), 1, "data/absent cannot be trained on"),
    (("sample", "data/absent.safetensors", "--prompt", "a"), 1, "data/absent.safetensors does not exist"),
    (("train", "data/faces", "--model", "small", "--backend", "magic"), 1, "There is no backend 'magic'"),
    (("train", "data/faces", "--model", "small", "--init-from", "absent"), 1, "absent does not exist"),
    (("sample", "data/face", "--prompt", "a"), 1, "Did you mean"),
    (("sample", "data/base.safetensors", "--prompt", "a"), 1, "base.safetensors is a base model, not a LoRA"),
    (("sample", "data/faces", "--prompt", "a"), 1, "data/faces holds no LoRA file"),
    (("sample", "data/a.safetensors", "--prompt", "a"), 1, "There is no base model 'absent'"),
    (("sample", "data/a.safetensors", "--prompt", "a", "--model", "smal"), 1, "There is no base model 'smal'"),
    (("sample", "data/a.safetensors", "--prompt", "a", "--out", "data/taken.png"), 1, "taken.png exists already"),
    (
        ("sample", "data/a.safetensors", "--prompt", "a", "--model", "small", "--out", "data/taken.png/x.png"),
        2,
        "Not a",
    ),
    (("batch", "batch.yaml"), 2, "data/absent cannot be trained on"),
    (("demo", "--local", "--out", "data/faces/00.png/x"), 1, "Not a directory"),
    (("demo", "--out", "data/faces/00.png/x"), 1, "Not a directory"),
)
"""Commands with a mistake, their exit codes, and a part of what they say."""


def test_a_mistake_is_said_before_torch_is_imported(project: Path) -> None:
    """In one process for all, as each of them would otherwise take a second for its imports."""
    (project / "data" / "empty").mkdir(exist_ok=True)
    (project / "batch.yaml").write_text("defaults: {modelName: small}\ndatasets: [data/absent]\nconfigs: [fast]\n")
    header = json.dumps({"__metadata__": {"ss_sd_model_name": "absent"}}).encode()
    (project / "data" / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (project / "data" / "taken.png").touch()
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"model.diffusion_model.out.2.bias": entry}).encode()
    (project / "data" / "base.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    code = (
        "import json, sys\n"
        "from click.testing import CliRunner\n"
        "from influencerai.cli.main import main\n"
        "done = [CliRunner().invoke(main, arguments) for arguments in json.loads(sys.argv[1])]\n"
        "loaded = sorted({'torch', 'diffusers', 'transformers', 'matplotlib'} & set(sys.modules))\n"
        "print(json.dumps([loaded, [[one.exit_code, one.output] for one in done]]))"
    )
    command = [sys.executable, "-c", code, json.dumps([arguments for arguments, _, _ in UNUSABLE])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=project, env=environment, check=True)
    loaded, ends = json.loads(done.stdout)
    assert loaded == []
    for (arguments, code_expected, text), (exit_code, output) in zip(UNUSABLE, ends, strict=True):
        assert (exit_code, text in " ".join(output.split())) == (code_expected, True), (arguments, output)


def test_a_cache_that_takes_no_files_is_said_before_a_training(
    invoke: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUENCERAI_CACHE_DIR", str(project / "data/faces/00.png/cache"))
    result = invoke("train", "data/faces", "--model", "small")
    assert result.exit_code == 1
    assert "INFLUENCERAI_CACHE_DIR" in result.stderr


def test_every_wrong_name_of_a_training_is_said_at_once(invoke: Invoke) -> None:
    result = invoke("train", "data/absent", "--model", "smal", "--output-path", "data/faces/00.png/x")
    assert result.exit_code == 1
    for text in ("data/absent cannot be trained on", "There is no base model 'smal'", "Not a directory"):
        assert text in result.stderr
    result = invoke("train", "data/absent", "--model", "smal", "--json")
    document = json_lines(result.stdout)[-1]
    assert document["code"] == "dataset"
    assert any("There is no base model 'smal'" in text for text in document["notes"])
