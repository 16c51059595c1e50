"""The documents: generated tables are current, named files exist, and what a reader is shown runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from influencerai.cli.main import main
from influencerai.domain import LoraConfig, TrainingOptions
from tests.databases import Databases
from tests.documents import LANGUAGES, execute, read_blocks
from tools.write_docs import MODELS, TABLES, error_classes, render

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
EXECUTABLE = [path for path in DOCUMENTS if any(block.is_executable for block in read_blocks(path.read_text("utf-8")))]
IN_CI = ("README.md", "train-here.md", "train-on-a-server.md")
"""Training in Python, by the command line, and by a server with Ray."""
EXAMPLE = """
```toml conf/own.toml
threads = 3
```

```console
$ cat \\
    conf/own.toml
threads = 3
$ python -c 'import os; print(os.environ["HF_HUB_OFFLINE"])'
1
```

<!-- not run: it would fail -->
```console
$ false
```

```text
$ false
```

```python
from pathlib import Path

print(Path("conf/own.toml").stat().st_size)
```
"""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def campaign_unless_quick(path: Path) -> Any:
    """A parameter; documents that train or serve run in the campaign, but for one of each way to use the product."""
    text = path.read_text("utf-8")
    marks = [pytest.mark.xdist_group("ray")] if re.search(r"^\$ influencerai serve", text, re.MULTILINE) else []
    if path.name not in IN_CI and re.search(r"^\$ influencerai (train|batch|serve)|\bTrainer\(", text, re.MULTILINE):
        marks.append(pytest.mark.campaign)
    return pytest.param(path, marks=marks, id=name(path))


def file_map() -> list[str]:
    """The paths in the first column of README's file map."""
    section = (ROOT / "README.md").read_text("utf-8").partition("\n## File map\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_tables_are_current(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text == render(text), "run: python -m tools.write_docs"


def test_every_table_has_its_place_in_the_docs() -> None:
    text = "".join(path.read_text("utf-8") for path in DOCUMENTS)
    assert set(re.findall(r"^<!-- table: (\w+) -->$", text, re.MULTILINE)) == {*MODELS, *TABLES}


def test_the_names_of_other_trainers_lead_to_names_of_ours() -> None:
    text = (ROOT / "docs/from-other-trainers.md").read_text("utf-8")
    named = {
        name for row in re.findall(r"^\| `[^|]+\|([^|]+)\|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert len(named) > 30
    assert named - {"train"} <= {*LoraConfig.wire_names(), *TrainingOptions.wire_names()}


def test_every_error_has_a_code_and_an_advice_of_its_own() -> None:
    found = error_classes()
    assert len(found) > 20
    assert len({error.code for error in found}) == len({error.advice for error in found}) == len(found)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_blocks_have_a_language_that_says_whether_they_run(path: Path) -> None:
    blocks = read_blocks(path.read_text("utf-8"))
    assert [(block.line, block.language) for block in blocks if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_to_files_that_exist(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_the_file_map_names_what_exists() -> None:
    assert file_map()
    assert [entry for entry in file_map() if not (ROOT / entry).exists()] == []


def test_the_file_map_names_every_package() -> None:
    packages = {
        name(path) + ("/" if path.is_dir() else "")
        for path in (ROOT / "influencerai").iterdir()
        if not path.stem.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    assert packages <= set(file_map())


def test_a_document_is_executed_in_order(tmp_path: Path) -> None:
    assert list(execute(EXAMPLE, folder=tmp_path)) == ["threads = 3\n", "1\n", "12\n"]


def test_a_command_that_fails_fails_its_document(tmp_path: Path) -> None:
    text = "\n```console\n$ echo before; ls absent\n```\n"
    with pytest.raises(AssertionError, match=r"line 2: .*(?s:.*)before"):
        list(execute(text, folder=tmp_path))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_have_the_options_that_a_document_gives_them(path: Path) -> None:
    """Also of blocks that do not run, and of documents that run in the campaign alone."""
    for block in read_blocks(path.read_text("utf-8")):
        for command in block.commands if block.language == "console" else []:
            for arguments in own_commands(command):
                check_options(arguments, where=f"{path.name}:{block.line}: {command}")


def test_an_option_that_does_not_exist_is_found() -> None:
    line = "A=1 .venv/bin/influencerai train 'my pictures' --epochs 2 > log && influencerai doctor --al | head"
    assert own_commands(line) == [["train", "my pictures", "--epochs", "2"], ["doctor", "--al"]]
    with pytest.raises(AssertionError, match="--al"):
        check_options(["doctor", "--al"], where="here")


def own_commands(line: str) -> list[list[str]]:
    """The arguments of each `influencerai` of a line of the shell."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    found: list[list[str]] = []
    current: list[str] | None = None
    is_start = True
    for word in words:
        if word[0] in "|&;()<>":
            is_start, current = word[0] not in "<>", None
        elif is_start and "=" in word and "/" not in word.partition("=")[0]:
            continue
        elif is_start:
            is_start = False
            if word.rpartition("/")[2] == "influencerai":
                current = []
                found.append(current)
        elif current is not None:
            current.append(word)
    return found


def check_options(arguments: list[str], *, where: str) -> None:
    """Parse what the program would parse; values, which may name files of the reader's, are not checked."""
    command: click.Command = main
    context, program = None, "influencerai"
    try:
        while isinstance(command, click.Group):
            context = command.make_context(program, arguments, parent=context)
            found, subcommand, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None
            assert subcommand is not None
            program, command = found, subcommand
        command.make_context(program, arguments, parent=context)
    except (click.NoSuchOption, click.MissingParameter) as error:
        raise AssertionError(f"{where}: {error.format_message()}") from error
    except (click.BadParameter, click.exceptions.Exit):
        pass


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", [campaign_unless_quick(path) for path in EXECUTABLE])
def test_what_a_document_shows_runs(path: Path, tmp_path: Path, databases: Databases) -> None:
    variables = {"DATABASE_URL": databases.new("postgres", schema=False), "INFLUENCERAI_THREADS": "1"}
    for _ in execute(path.read_text("utf-8"), folder=tmp_path, environment=variables):
        pass


def test_the_glossary_defines_each_word_once() -> None:
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", text, re.MULTILINE)
    words = [word for entry, _ in rows for word in entry.split(", ")]
    assert len(words) > 100
    assert [word for word in words if words.count(word) > 1] == []
