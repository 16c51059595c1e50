from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from influencerai import __version__
from influencerai.cli.config_options import ConfigOption
from influencerai.cli.main import COMMANDS, main
from influencerai.cli.outcome import exit_code_of, report_error
from influencerai.errors import DatasetError, TrainingError, ValidationError
from influencerai.interruption import InterruptedRun
from tests.cli.conftest import Invoke, json_lines

ROOT = Path(__file__).parents[2]


def all_commands() -> dict[str, click.Command]:
    """Every command that can be run, by its words."""
    found: dict[str, click.Command] = {}
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        found |= commands_of(name, command)
    return found


def commands_of(words: str, command: click.Command) -> dict[str, click.Command]:
    """The command, or those of a group and of the groups in it, by their words."""
    if not isinstance(command, click.Group):
        return {words: command}
    found: dict[str, click.Command] = {}
    for name, inner in command.commands.items():
        found |= commands_of(f"{words} {name}", inner)
    return found


@pytest.mark.parametrize("words", all_commands())
def test_every_command_has_help_with_examples_that_parse(words: str, invoke: Invoke) -> None:
    result = invoke(*words.split(), "--help")
    assert result.exit_code == 0
    start = f"influencerai {words}"
    lines = [line.strip() for line in result.output.splitlines()]
    examples = [shlex.split(line.removeprefix(start)) for line in lines if line.startswith(start)]
    assert examples
    for arguments in examples:
        all_commands()[words].make_context(words, arguments)


@pytest.mark.parametrize("words", all_commands())
def test_every_option_has_a_help_text(words: str) -> None:
    options = [parameter for parameter in all_commands()[words].params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []
    assert {"--json", "--debug"} <= {name for option in options for name in option.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_has_each_commands_own_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.short_help == COMMANDS[name]


@pytest.mark.parametrize("words", all_commands())
def test_the_docs_describe_every_command_with_its_options(words: str) -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    section = text.partition(f"\n## `influencerai {words}`\n")[2].partition("\n## ")[0]
    options = [
        parameter
        for parameter in all_commands()[words].params
        if isinstance(parameter, click.Option) and not isinstance(parameter, ConfigOption)
    ]
    undescribed = {option.opts[0] for option in options if f"`{option.opts[0]}`" not in section}
    assert section
    assert undescribed == {"--json", "--debug"}, "these two are described once for all commands"


def test_help_and_version_import_neither_pydantic_nor_rich_nor_torch() -> None:
    code = (
        "import json, sys; from influencerai.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end:\n"
        "    print(json.dumps([end.code, sorted({'pydantic', 'rich', 'torch'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_the_version(invoke: Invoke) -> None:
    assert invoke("--version").output == f"influencerai, version {__version__}\n"


def test_the_module_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "influencerai", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatasetError("x"), 1),
        (RuntimeError("x"), 1),
        (ValidationError("x"), 2),
        (click.UsageError("x"), 2),
        (KeyboardInterrupt(), 130),
        (InterruptedRun("x", signal_number=2), 130),
        (InterruptedRun("x", signal_number=15), 143),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


def test_an_unknown_command_or_option_is_a_usage_error(invoke: Invoke) -> None:
    assert invoke("trane").exit_code == 2
    result = invoke("train", "data/faces", "--epoch-count", "3", "--json")
    assert result.exit_code == 2
    (document,) = json_lines(result.stdout)
    assert (document["type"], document["code"], document["exitCode"]) == ("error", "usage", 2)
    assert "--epoch-count" in document["message"]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("ui", "influencerai serve"),
        ("GUI", "influencerai serve"),
        ("caption", "influencerai dataset check"),
        ("resume", "--resume"),
        ("compare", "influencerai sample"),
        ("trian", "Did you mean 'train'?"),
        ("Train", "Did you mean 'train'?"),
        ("xyzzy", ""),
    ],
)
def test_an_unknown_command_comes_with_what_to_do_instead(invoke: Invoke, word: str, hint: str) -> None:
    result = invoke(word)
    assert result.exit_code == 2
    assert f"No such command '{word}'." in result.stderr
    assert hint in result.stderr


def test_an_error_is_message_then_remedy_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(DatasetError("The folder is empty.", remedy="Put pictures into it."), as_json=False, debug=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Error: The folder is empty.\nPut pictures into it.\n"


def test_field_errors_name_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(ValidationError(field_errors={"meta.minSnrGamma": ["bad"]}), as_json=False, debug=False)
    assert "meta.minSnrGamma (--min-snr-gamma): bad" in capsys.readouterr().err


def test_a_failed_run_says_what_it_left(capsys: pytest.CaptureFixture[str]) -> None:
    error = TrainingError("The loss is not a number.")
    error.failure = {"error": "...", "epoch": 3, "partialCheckpoints": ["me-epoch-2.safetensors"]}
    error.add_note("a note")
    report_error(error, as_json=False, debug=False)
    text = capsys.readouterr().err
    assert "epoch 3" in text
    assert "me-epoch-2.safetensors" in text
    assert "a note" in text
    report_error(error, as_json=True, debug=False)
    assert json.loads(capsys.readouterr().out)["result"] == error.failure


def test_an_unexpected_error_asks_for_a_report_and_shows_its_traceback_on_demand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise RuntimeError("what nobody thought of")
    except RuntimeError as error:
        report_error(error, as_json=False, debug=False)
        quiet = capsys.readouterr().err
        report_error(error, as_json=False, debug=True)
        loud = capsys.readouterr().err
        report_error(error, as_json=True, debug=False)
        document = json.loads(capsys.readouterr().out)
    assert "what nobody thought of" in quiet
    assert "report" in quiet
    assert "Traceback" not in quiet
    assert "Traceback" in loud
    assert document["code"] == "unexpected"


def test_a_reader_that_goes_away_leaves_no_traceback(project: Path) -> None:
    command = f"{sys.executable} -m influencerai dataset check {project / 'data' / 'faces'} --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
