from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from influencerai.batch.document import read_batch
from influencerai.batch.trainings import Batch
from influencerai.domain.output_path import output_path
from influencerai.errors import ValidationError

MATRIX = """
defaults:
  model_name: sd15
  epochs: 3
  meta: {seed: 7, triggerWord: general}
datasets:
  - pictures/ann
  - path: /far/away/Bob
    name: bob
    triggerWord: zwx
configs:
  - fast
  - name: Small rank
    network_dim: 4
    networkAlpha: 2
    learningRate: 1e-3
    meta: {flip: true}
"""


def read(tmp_path: Path, text: str, *, name: str = "batch.yaml") -> Batch:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return read_batch(file)


def problems(batch: Batch) -> list[tuple[str, str]]:
    return [(problem.where, problem.text) for problem in batch.problems]


def only_problem(batch: Batch) -> str:
    [(where, text)] = problems(batch)
    return f"{where}: {text}"


def test_each_dataset_meets_each_config(tmp_path: Path) -> None:
    found = read(tmp_path, MATRIX)
    assert problems(found) == []
    assert [(training.name, training.dataset, output_path(training.config)) for training in found.trainings] == [
        ("ann-fast", "pictures/ann", "data/loras/ann-fast"),
        ("ann-Small rank", "pictures/ann", "data/loras/ann-small-rank"),
        ("bob-fast", "/far/away/Bob", "data/loras/bob-fast"),
        ("bob-Small rank", "/far/away/Bob", "data/loras/bob-small-rank"),
    ]
    fast, small = found.trainings[0].config, found.trainings[3].config
    assert (fast.epochs, fast.network_dim, fast.options.seed) == (10, 8, 7)  # a preset wins over the defaults
    assert (small.epochs, small.network_dim, small.learning_rate, small.options.flip) == (3, 4, 1e-3, True)
    assert [training.config.options.trigger_word for training in found.trainings] == [
        "general",
        "general",
        "zwx",
        "zwx",
    ]


def test_pairs_are_added_and_left_out(tmp_path: Path) -> None:
    more = """
exclude:
  - {dataset: bob, config: fast}
  - {dataset: pictures/ann, config: Small rank}
trainings:
  - {dataset: bob, config: fast, name: again}
  - dataset: {path: other/cat, triggerWord: cat}
    config: {preset: conservative, epochs: 2}
  - {dataset: other/dog, config: balanced}
"""
    found = read(tmp_path, MATRIX + more)
    assert problems(found) == []
    assert [(training.name, training.dataset) for training in found.trainings] == [
        ("ann-fast", "pictures/ann"),
        ("bob-Small rank", "/far/away/Bob"),
        ("again", "/far/away/Bob"),
        ("cat-conservative", "other/cat"),
        ("dog-balanced", "other/dog"),
    ]
    again, cat = found.trainings[2].config, found.trainings[3].config
    assert (again.options.trigger_word, cat.options.trigger_word) == ("zwx", "cat")
    assert (cat.epochs, cat.network_dim, cat.learning_rate) == (2, 32, 3e-5)


def test_a_single_config_needs_no_name_and_output_paths_may_be_patterns(tmp_path: Path) -> None:
    text = "datasets: [a/x, b/Y]\nconfigs: [{modelName: sd15, outputPath: 'loras/{dataset}/{name}-v1'}]"
    found = read(tmp_path, text)
    assert problems(found) == []
    assert [(training.name, output_path(training.config)) for training in found.trainings] == [
        ("x", "loras/x/x-v1"),
        ("Y", "loras/y/y-v1"),
    ]


def test_every_problem_is_told_with_entry_and_line(tmp_path: Path) -> None:
    text = """
datasets: [x, a/x]
defaults: {modelName: sd15}
configs:
  - learningrate: 3
  - {name: a, epochs: 0, meta: {optimizer: Foo}}
  - {name: a}
  - {name: c, optimizer: AdamW}
  - fats
exclude:
  - {dataset: z}
  - {config: b, dataset: x}
  - {}
"""
    assert problems(read(tmp_path, text)) == [
        ("configs[0] (line 5)", "name: Field required, since it tells the trainings apart."),
        ("datasets[1] (line 2)", "It is called 'x', as datasets[0] (line 2) is: give it another `name`."),
        ("configs[2] (line 7)", "It is called 'a', as configs[1] (line 6) is: give it another `name`."),
        ("exclude[0] (line 11)", "No training has the dataset 'z'."),
        ("exclude[1] (line 12)", "No training has the dataset 'x' and the config 'b'."),
        ("exclude[2] (line 13)", "Name a dataset, a config or both."),
        ("configs[0] (line 5)", "learningrate: Unknown field 'learningrate', did you mean 'learningRate'?"),
        ("configs[1] (line 6)", "epochs: Input should be greater than or equal to 1."),
        ("configs[1] (line 6)", _options("optimizer")),
        ("configs[3] (line 8)", "optimizer: This option belongs under meta: meta.optimizer."),
        ("configs[4] (line 9)", "preset: There is no preset 'fats'; there are conservative, balanced, fast."),
        ("configs[2] (line 7), dataset 'x'", _twice("x-a", "configs[2] (line 7), dataset 'x'")),
    ]


def _options(name: str) -> str:
    names = ["'AdamW'", "'AdamW8bit'", "'Adafactor'", "'Prodigy'", "'Lion'"]
    return f"meta.{name}: Input should be {', '.join(names)} or 'ScheduleFreeAdamW'."


def _twice(name: str, other: str) -> str:
    return f"Two trainings would be called '{name}', the other by {other}: give one another `name`."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "the file: It names no training. Give `datasets` and `configs`, or `trainings`."),
        ("dataset: [x]", "dataset (line 1): Unknown field 'dataset', did you mean 'datasets'?"),
        ("datasets: [{pth: x}]", "datasets[0] (line 1): pth: Unknown field 'pth', did you mean 'path'?"),
        ("datasets: x", "datasets (line 1): Input should be a valid list."),
        ("configs: [[1]]", "configs[0] (line 1): Input should be a valid mapping."),
        ("trainings: [{dataset: x}]", "trainings[0] (line 1): config: Field required."),
        ("trainings: [{dataset: x, config: {epochs: 1}}]", "trainings[0] (line 1): modelName: Field required: sd15, "),
        (
            "defaults: {name: x}\ndatasets: [x]\nconfigs: [fast]",
            "defaults (line 1): name: This belongs to one config, not to all.",
        ),
        ("defaults: {epoch: 1}\ndatasets: [x]\nconfigs: [{modelName: m}]", "did you mean 'epochs'?"),
    ],
)
def test_a_wrong_form_is_told(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in only_problem(read(tmp_path, text))


def test_two_trainings_must_not_write_to_one_folder(tmp_path: Path) -> None:
    text = "datasets: [x, y]\nconfigs: [{modelName: sd15, outputPath: loras/same}]"
    assert "Two trainings would write to loras/same" in only_problem(read(tmp_path, text))
    text = "datasets: [{path: x, name: a b}, {path: y, name: A-B}]\nconfigs: [{modelName: sd15}]"
    assert "Two trainings would write to data/loras/a-b" in only_problem(read(tmp_path, text))


def test_what_means_nothing_is_ignored_with_a_warning(tmp_path: Path) -> None:
    text = "datasets: [{path: x, colour: red}]\nconfigs: [{modelName: sd15, foo: 1}]\nauthor: me"
    found = read(tmp_path, text)
    assert len(found.trainings) == 1
    assert found.warnings == (
        "author is not a field and is ignored.",
        "datasets[0] (line 1): colour is not a field and is ignored.",
        "configs[0] (line 2): foo is not a field and is ignored.",
    )


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: &x 1", "a: 1\na: 2"])
def test_a_file_that_is_no_yaml_of_ours_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValidationError, match=r"The batch file .*batch\.yaml"):
        read(tmp_path, text)


def test_names_without_latin_letters_get_paths_of_their_own(tmp_path: Path) -> None:
    found = read(tmp_path, "datasets: [鳥, 犬]\nconfigs: [{modelName: sd15}]")
    assert problems(found) == []
    assert len({output_path(training.config) for training in found.trainings}) == 2


names = st.text(st.characters(categories=["L", "N", "Zs"], include_characters="-_."), min_size=1, max_size=12).map(
    str.strip
)


@given(
    datasets=st.lists(names.filter(bool), min_size=1, max_size=4, unique=True),
    configs=st.lists(names.filter(bool), min_size=1, max_size=4, unique=True),
)
def test_trainings_have_names_and_paths_of_their_own_or_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, datasets: list[str], configs: list[str]
) -> None:
    document: dict[str, Any] = {
        "datasets": [{"path": f"p/{number}", "name": name} for number, name in enumerate(datasets)],
        "configs": [{"name": name, "modelName": "sd15"} for name in configs],
    }
    found = read(tmp_path_factory.mktemp("any"), yaml.safe_dump(document, allow_unicode=True, default_style='"'))
    assert len(found.trainings) == len(datasets) * len(configs)
    seen = {training.name for training in found.trainings}, {output_path(item.config) for item in found.trainings}
    is_unique = all(len(names) == len(found.trainings) for names in seen)
    assert is_unique == (found.problems == ())


def test_csv_has_a_training_per_row(tmp_path: Path) -> None:
    text = (
        "\ufeffdataset;name;model_name;epochs;learningRate;meta.flip;meta.min_snr_gamma;meta.triggerWord;preset\r\n"
        "data/a;;sd15;2;1e-3;TRUE;null;null;\r\n"
        "\r\n"
        "data/b; 007 ;sd15;;;;;;fast;;;\r\n"
    )
    found = read(tmp_path, text, name="runs.CSV")
    assert problems(found) == []
    first, second = found.trainings
    assert (first.name, first.dataset, first.where, output_path(first.config)) == (
        "a",
        "data/a",
        "line 2",
        "data/loras/a",
    )
    assert (first.config.epochs, first.config.learning_rate) == (2, 1e-3)
    options = first.config.options
    assert (options.flip, options.min_snr_gamma, options.trigger_word) == (True, None, "null")
    assert (second.name, second.config.epochs, second.config.network_dim) == ("007", 10, 8)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_lines_end_where_a_spreadsheet_ends_them(end: str, tmp_path: Path) -> None:
    texts = ["one\u2028two", "one\u0085two", "one\x0btwo", "one\x0ctwo"]
    rows = [f"set{number},{text}" for number, text in enumerate(texts)]
    (tmp_path / "runs.csv").write_bytes(
        end.join(["dataset,description,modelName", *(f"{row},sd15" for row in rows)]).encode()
    )
    found = read_batch(tmp_path / "runs.csv")
    assert found.problems == ()
    assert [training.config.description for training in found.trainings] == texts


def test_csv_tells_its_problems_by_line(tmp_path: Path) -> None:
    rows = ["a,sd15,0,red", ",sd15,1,", 'b,sd15,"1,5",', "c,,1,", "d,sd15,1,1,5", "a,sd15,2,", "a,sd15,3,"]
    text = "\n".join(["dataset,modelName,epochs,colour", *rows])
    found = read(tmp_path, text, name="runs.csv")
    assert problems(found) == [
        ("line 3", "The cell `dataset` is empty: name a folder of pictures."),
        ("line 6", "It has 5 cells, but there are 4 columns: put quotes around text with commas."),
        ("line 2", "epochs: Input should be greater than or equal to 1."),
        ("line 4", "epochs: Input should be a valid integer."),
        ("line 5", "modelName: Field required: sd15, sdxl, a hub id, a folder or a .safetensors file."),
        ("line 8, dataset 'a'", _twice("a", "line 7, dataset 'a'")),
    ]
    assert found.warnings == ("line 1: colour is not a field and is ignored.",)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("datset,epochs", "datset: Unknown column, did you mean 'dataset'?"),
        ("dataset,epoch", "epoch: Unknown field, did you mean 'epochs'?"),
        ("dataset,meta.optmizer", "meta.optmizer: Unknown field, did you mean 'meta.optimizer'?"),
        ("dataset,optimizer", "optimizer: This option belongs under meta: call the column `meta.optimizer`."),
        ("dataset,epochs,epochs", "The column `epochs` stands twice."),
        ("name,epochs", "There is no column `dataset`, which names the folder of pictures."),
    ],
)
def test_a_wrong_column_is_told_once(tmp_path: Path, header: str, expected: str) -> None:
    assert only_problem(read(tmp_path, f"{header}\na,1,1\nb,2,2\n", name="runs.csv")) == f"line 1: {expected}"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "it is empty"),
        (b'dataset\n"a', "line 2"),
        (b"a" * 2**21, "1 MiB"),
    ],
)
def test_csv_that_cannot_be_read_is_refused_by_name(tmp_path: Path, data: bytes, expected: str) -> None:
    file = tmp_path / "runs.csv"
    file.write_bytes(data)
    with pytest.raises(ValidationError, match=rf"runs\.csv cannot be read: .*{expected}"):
        read_batch(file)


def test_a_spreadsheets_csv_in_windows_1252_is_read_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_bytes("dataset;modelName\nfotos/Zoë;sd15\n".encode("cp1252"))
    batch = read_batch(file)
    assert [training.dataset for training in batch.trainings] == ["fotos/Zoë"]
    assert batch.warnings == (f"{file} is not UTF-8 and is read as Windows-1252.",)
