"""Settings: what wins over what, where paths start from, and what a mistake says."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import pytest

from influencerai.errors import ValidationError
from influencerai.settings import CLIENT_VARIABLES, ENV_PREFIX, Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def origin(settings: Settings, name: str) -> str:
    return next(entry.origin for entry in settings.origins() if entry.name == name)


def test_without_anything_the_root_is_the_current_directory(tmp_path: Path) -> None:
    settings = Settings.load()
    assert settings.root == tmp_path
    assert settings.models_dir == tmp_path / "models"
    assert settings.cache_dir == tmp_path / ".influencerai" / "cache"
    assert {entry.origin for entry in settings.origins()} == {"default"}
    assert [entry.name for entry in settings.origins()] == list(Settings.model_fields)


def test_an_argument_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "influencerai.toml"
    file.write_text('device = "cpu"\nthreads = 3\ncache_max_gib = 1.5\n')
    monkeypatch.setenv("INFLUENCERAI_DEVICE", "cuda")
    monkeypatch.setenv("INFLUENCERAI_THREADS", "2")
    settings = Settings.load(threads=1, device=None)
    assert (settings.threads, settings.device, settings.cache_max_gib) == (1, "cuda", 1.5)
    assert origin(settings, "threads") == "argument"
    assert origin(settings, "device") == "INFLUENCERAI_DEVICE"
    assert origin(settings, "cache_max_gib") == str(file)
    assert origin(settings, "max_image_pixels") == "default"


def test_direct_construction_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "influencerai.toml").write_text("threads = 3\n")
    monkeypatch.setenv("INFLUENCERAI_DEVICE", "cuda")
    settings = Settings(root=tmp_path)
    assert (settings.threads, settings.device) == (None, "auto")


def test_the_file_is_the_one_in_the_root_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "influencerai.toml").write_text("threads = 3\n")
    (elsewhere / "own.toml").write_text("threads = 4\n")
    assert Settings.load().threads is None
    assert Settings.load(root=root).threads == 3
    monkeypatch.setenv("INFLUENCERAI_ROOT", "root")
    assert Settings.load().threads == 3
    monkeypatch.setenv("INFLUENCERAI_SETTINGS_FILE", "elsewhere/own.toml")
    assert Settings.load().threads == 4


def test_paths_start_from_the_file_that_names_them_or_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "own.toml").write_text('root = ".."\nmodels_dir = "shelf"\n')
    monkeypatch.setenv("INFLUENCERAI_SETTINGS_FILE", str(folder / "own.toml"))
    monkeypatch.setenv("INFLUENCERAI_CACHE_DIR", "near")
    settings = Settings.load()
    assert settings.root == tmp_path
    assert settings.models_dir == folder / "shelf"
    assert settings.cache_dir == tmp_path / "near"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INFLUENCERAI_MODELS_DIR", "~/models")
    assert Settings.load().models_dir == tmp_path / "home" / "models"


def test_paths_stay_when_the_current_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(models_dir="here")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert settings.models_dir == tmp_path / "here"


def test_models_are_looked_for_in_the_users_folder_then_in_the_embedded_one(tmp_path: Path) -> None:
    own, embedded = Settings(root=tmp_path).models_dirs
    assert own == tmp_path / "models"
    assert embedded.parts[-3:] == ("influencerai", "demo", "models")
    assert (embedded.parents[1] / "errors.py").is_file()


def test_threads_default_to_the_cores_that_may_be_used() -> None:
    assert Settings(threads=7).usable_threads == 7
    assert 1 <= Settings().usable_threads <= (os.cpu_count() or 1)


@pytest.mark.parametrize("value", ["0", "false", "no", "off"])
def test_false_has_many_spellings(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCERAI_ALLOW_DOWNLOADS", value)
    assert Settings.load().allow_downloads is False


def test_an_empty_variable_is_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCERAI_THREADS", "")
    monkeypatch.setenv("INFLUENCERAI_SETTINGS_FILE", "")
    assert origin(Settings.load(), "threads") == "default"


def test_a_bad_value_names_what_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "influencerai.toml"
    file.write_text("cache_max_gib = inf\n")
    monkeypatch.setenv("INFLUENCERAI_THREADS", "many")
    with pytest.raises(ValidationError) as caught:
        Settings.load(device="gpu")
    assert caught.value.field_errors.keys() == {"device", "INFLUENCERAI_THREADS", f"cache_max_gib in {file}"}
    assert "'auto', 'cpu' or 'cuda'" in caught.value.field_errors["device"][0]


@pytest.mark.parametrize(
    "name", ["INFLUENCERAI_ROOT", "INFLUENCERAI_MODELS_DIR", "INFLUENCERAI_CACHE_DIR", "INFLUENCERAI_SETTINGS_FILE"]
)
def test_a_home_folder_of_nobody_names_the_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "~nosuch/x")
    with pytest.raises(ValidationError, match="'~nosuch' is no user's home folder: write the path in full") as caught:
        Settings.load()
    assert list(caught.value.field_errors) == [name]


def test_a_home_folder_of_nobody_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "influencerai.toml"
    file.write_text('models_dir = "~nosuch/x"\n')
    with pytest.raises(ValidationError) as caught:
        Settings.load()
    assert list(caught.value.field_errors) == [f"models_dir in {file}"]


def test_a_tilde_in_the_file_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "influencerai.toml").write_text('models_dir = "~/models"\n')
    assert Settings.load().models_dir == tmp_path / "home" / "models"


def test_a_root_that_may_not_be_looked_into_is_named() -> None:
    root = "x" * 300
    with pytest.raises(ValidationError, match=f"{root} cannot be used: File name too long.*INFLUENCERAI_ROOT"):
        Settings.load(root=root)


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000], ids=["deep", "long"])
def test_a_file_that_is_too_deep_or_has_too_long_a_number_is_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "influencerai.toml").write_text(f"threads = {value}\n")
    with pytest.raises(ValidationError, match=r"influencerai\.toml cannot be read"):
        Settings.load()


def test_the_cache_has_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCERAI_CACHE_MAX_GIB", "1e7")
    with pytest.raises(ValidationError, match=r"INFLUENCERAI_CACHE_MAX_GIB: .*less than or equal to"):
        Settings.load()


def test_a_bad_root_is_reported_once(tmp_path: Path) -> None:
    file = tmp_path / "influencerai.toml"
    file.write_text("root = 5\n")
    with pytest.raises(ValidationError) as caught:
        Settings.load()
    assert list(caught.value.field_errors) == [f"root in {file}"]


def test_an_unknown_key_of_the_file_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "influencerai.toml"
    file.write_text('model_dir = "m"\ncolour = "red"\n')
    with pytest.raises(ValidationError, match=str(file)) as caught:
        Settings.load()
    assert caught.value.field_errors["model_dir"] == ["Unknown setting, did you mean 'models_dir'?"]
    assert caught.value.field_errors["colour"] == ["Unknown setting"]


def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "influencerai.toml").write_text("threads = = 3\n")
    with pytest.raises(ValidationError, match=r"influencerai\.toml cannot be read.*line 1"):
        Settings.load()
    monkeypatch.setenv("INFLUENCERAI_SETTINGS_FILE", "absent.toml")
    with pytest.raises(ValidationError, match=r"absent\.toml cannot be read"):
        Settings.load()


def test_a_near_miss_of_a_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCERAI_MODEL_DIR", "/models")
    with pytest.raises(ValidationError) as caught:
        Settings.load()
    message = "Unknown setting, did you mean INFLUENCERAI_MODELS_DIR?"
    assert caught.value.field_errors == {"INFLUENCERAI_MODEL_DIR": [message]}


def test_another_variable_with_our_prefix_is_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCERAI_SERVICE_HOST", "10.0.0.7")
    (warning,) = Settings.load().warnings
    assert "INFLUENCERAI_SERVICE_HOST" in warning


def test_the_variables_of_the_client_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CLIENT_VARIABLES:
        monkeypatch.setenv(name, "x")
    assert Settings.load().warnings == ()


def test_load_names_every_setting_for_completion() -> None:
    parameters = inspect.signature(Settings.load).parameters
    assert set(parameters) == set(Settings.model_fields)
    assert parameters["root"].default is None


@pytest.mark.parametrize("make", [Settings, Settings.load])
def test_settings_that_cannot_be_used_are_refused_in_our_own_words(make: Any) -> None:
    for arguments in ({"banana": 1}, {"root": 3}, {"threads": 0}):
        with pytest.raises(ValidationError, match=f"A setting cannot be used: {next(iter(arguments))}: "):
            make(**arguments)


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path)
    with pytest.raises(ValidationError, match="threads: Settings are frozen"):
        settings.threads = 2  # type: ignore[misc]
