from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from influencerai.batch.report import write_report
from influencerai.batch.rows import BatchRow
from influencerai.batch.state import BatchState
from influencerai.domain import LoraConfig
from influencerai.domain.output_path import RUN_MARKER
from influencerai.settings import Settings
from influencerai.train.trainer import Trainer
from tests.cli.batches import SETTINGS, BatchPlace, document, interrupt, write_pictures
from tests.cli.conftest import json_lines

NAMES = ["ava-four", "ava-eight", "leo-four", "leo-eight"]
DRY = ("--backend", "dry-run")
"""A backend that checks everything and writes a file at once."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchPlace:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return BatchPlace(tmp_path)


@pytest.mark.slow
def test_every_training_is_done_once(place: BatchPlace) -> None:
    first = place.trained(*DRY)
    assert [(row["name"], row["status"], row["earlier"]) for row in first] == [
        (name, "completed", False) for name in NAMES
    ]
    assert [row["file"] for row in first] == [f"data/loras/{name}/{name}-final.safetensors" for name in NAMES]
    assert sorted(place.files()) == sorted(row["file"] for row in first)
    runs, files = place.runs, place.files()
    assert len(runs) == 4

    again = place.trained(*DRY)
    assert [row["earlier"] for row in again] == [True] * 4
    assert [row["file"] for row in again] == [row["file"] for row in first]
    assert (place.runs, place.files()) == (runs, files)


@pytest.mark.slow
def test_a_changed_config_a_changed_picture_and_a_lost_file_are_trained_again(place: BatchPlace) -> None:
    place.trained(*DRY)
    place.write(
        configs=[
            {"name": "four", "networkDim": 4, "networkAlpha": 4},
            {"name": "eight", "networkDim": 8, "networkAlpha": 4, "description": "changes no byte"},
        ]
    )
    changed = {row["name"]: row for row in place.trained(*DRY)}
    assert {name for name, row in changed.items() if not row["earlier"]} == {"ava-four", "leo-four"}
    assert changed["ava-four"]["file"].startswith("data/loras/ava-four-")  # the other run's files stay

    (place.root / "data" / "datasets" / "leo" / "leo_01.txt").write_text("another caption")
    (place.root / "data" / "loras" / "ava-eight" / "ava-eight-final.safetensors").unlink()
    changed = {row["name"]: row for row in place.trained(*DRY)}
    assert {name for name, row in changed.items() if not row["earlier"]} == {"leo-four", "leo-eight", "ava-eight"}


def test_all_problems_are_told_and_nothing_is_started(place: BatchPlace) -> None:
    place.write(
        datasets=["data/datasets/ava", "data/absent"],
        configs=[
            {"name": "fine"},
            {"name": "modelless", "modelName": "no/such-model"},
            {"name": "huge", "batchSize": 64, "resolution": 2048, "meta": {"targetModules": "all"}},
            {"name": "wrong", "epochs": 0},
        ],
    )
    found = place.batch()
    assert found.exit_code == 2
    said = "".join(found.stderr.split())  # a long path is wrapped
    for shown in (
        "configs[3] (line",
        "epochs: Input should be greater than or equal to 1.",
        "There is no base model 'no/such-model'",
        "data/absent cannot be trained on",
        "GB of memory",
        "Set gradientCheckpointing to true",
        "Nothing was started.",
    ):
        assert "".join(shown.split()) in said
    assert "ava-fine" not in found.stderr
    assert (place.runs, place.files()) == ([], {})
    error = json_lines(place.batch("--json").stdout)[-1]
    assert (error["code"], error["exitCode"]) == ("validation", 2)
    assert {"ava-modelless", "ava-huge", "absent-fine", "absent-modelless"} < error["fieldErrors"].keys()
    assert len(error["fieldErrors"]["absent-modelless"]) == 2
    assert f"{sum(map(len, error['fieldErrors'].values()))} problems" in error["message"]


def test_a_dry_run_shows_totals_and_stores_nothing(place: BatchPlace) -> None:
    before = sorted(place.root.rglob("*"))
    found = place.batch("--dry-run")
    assert found.exit_code == 0, found.output
    assert "4 trainings, 8 steps in all" in found.stdout
    assert "Dry run: nothing was trained." in found.stdout
    result = json_lines(place.batch("--dry-run", "--json").stdout)[-1]
    assert [(item["name"], item["steps"], item["standing"]) for item in result["trainings"]] == [
        (name, 2, "open") for name in NAMES
    ]
    assert result["totals"] == {"open": 4, "steps": 8, "seconds": None, "ofKnownTime": 0}
    assert sorted(place.root.rglob("*")) == before


@pytest.mark.slow
def test_the_time_is_known_from_earlier_runs(place: BatchPlace) -> None:
    place.trained(*DRY)
    for run in (place.root / ".influencerai" / "runs").iterdir():
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(result | {"trainingTimeMinutes": 0.5}))
    place.write(configs=[{"name": "long", "epochs": 4, "networkDim": 4, "networkAlpha": 2}])
    found = json_lines(place.batch("--dry-run", "--json").stdout)[-1]
    assert [item["seconds"] for item in found["trainings"]] == [120, 120]
    assert "about 4:00" in place.batch("--dry-run").stdout


@pytest.mark.slow
def test_one_that_fails_stops_no_other_and_is_tried_again_only_when_asked(place: BatchPlace) -> None:
    blocked = place.root / "blocked" / "lora" / RUN_MARKER
    blocked.mkdir(parents=True)  # no check beforehand opens the marker of a run
    pair = {"dataset": "ava", "config": {"outputPath": "blocked/lora"}, "name": "stuck"}
    place.write(trainings=[pair], configs=[{"name": "four"}])
    found = place.batch(*DRY, "--report", "out/report.csv", "--json")
    assert found.exit_code == 1
    error = json_lines(found.stdout)[-1]
    assert error["message"] == "Of 3 trainings 1 failed: stuck."
    assert "--retry-failed" in error["remedy"]
    rows = {row["name"]: row for row in error["result"]["trainings"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "ava-four": "completed",
        "leo-four": "completed",
        "stuck": "failed",
    }
    assert "blocked/lora" in rows["stuck"]["error"]
    with (place.root / "out" / "report.csv").open(newline="") as file:
        report = {row["name"]: row for row in csv.DictReader(file)}
    assert report["stuck"]["error"] == rows["stuck"]["error"]
    assert float(report["ava-four"]["finalLoss"]) == rows["ava-four"]["finalLoss"]

    blocked.rmdir()
    found = place.batch(*DRY)
    assert found.exit_code == 1
    assert "failed earlier" in found.stdout
    assert {row["name"]: row["earlier"] for row in place.trained(*DRY, "--retry-failed", "--report", "all.json")} == {
        "ava-four": True,
        "leo-four": True,
        "stuck": False,
    }
    assert [row["status"] for row in json.loads((place.root / "all.json").read_text())["trainings"]] == [
        "completed"
    ] * 3
    assert place.batch(*DRY).exit_code == 0


def test_an_output_folder_that_cannot_be_made_is_told_before_anything_starts(place: BatchPlace) -> None:
    (place.root / "blocked").write_text("a file where a folder should be")
    place.write(trainings=[{"dataset": "ava", "config": {"outputPath": "blocked/lora"}, "name": "stuck"}], configs=[])
    found = place.batch(*DRY)
    assert found.exit_code == 2
    assert "blocked/lora cannot be made" in " ".join(found.stderr.split())
    assert place.runs == []


@pytest.mark.parametrize("report", ["batch.yaml/report.csv", "taken.csv"])
def test_a_report_that_cannot_be_written_is_told_before_anything_starts(report: str, place: BatchPlace) -> None:
    (place.root / "taken.csv").mkdir()
    found = place.batch(*DRY, "--report", report)
    assert found.exit_code == 1
    assert f"The report {report} cannot be written" in found.stderr
    assert place.runs == []


def test_no_text_of_a_report_is_a_formula(tmp_path: Path) -> None:
    texts = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(1)", "\tx", "\rx", "a=b"]
    rows = [BatchRow(name=text, dataset="d", final_loss=-0.5) for text in texts]
    write_report(tmp_path / "r.csv", rows)
    with (tmp_path / "r.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["name"] for row in found] == [*(f"'{text}" for text in texts[:-2]), "'\nx", "a=b"]
    assert {row["finalLoss"] for row in found} == {"-0.5"}
    write_report(tmp_path / "r.json", rows)
    assert [row["name"] for row in json.loads((tmp_path / "r.json").read_text())["trainings"]] == texts


def test_after_a_failure_the_rest_can_be_left(place: BatchPlace) -> None:
    (place.root / "blocked" / "ava-four" / RUN_MARKER).mkdir(parents=True)
    place.write(configs=[{"name": "four", "outputPath": "blocked/{name}"}, {"name": "eight"}])
    found = place.batch(*DRY, "--fail-fast", "--json")
    assert found.exit_code == 1
    rows = json_lines(found.stdout)[-1]["result"]["trainings"]
    assert [row["status"] for row in rows] == ["failed", "waiting", "waiting", "waiting"]
    assert place.files() == {}


@pytest.mark.slow
def test_lines_say_how_it_goes_and_the_end_is_a_table(place: BatchPlace) -> None:
    found = place.batch(*DRY)
    lines = found.stderr.splitlines()
    assert "ava-four  checking" in lines
    assert any(line.startswith("leo-eight  completed  final loss 0.0000  data/loras/leo-eight/") for line in lines)
    assert found.stdout.split("\n")[0].split() == ["training", "status", "final", "loss", "time", "file", "or", "error"]
    assert [line.split()[:2] for line in found.stdout.splitlines()[1:]] == [[name, "completed"] for name in NAMES]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--report", "a.txt"), "should end in .csv or .json"),
        (("--upload",), "--upload goes with --server"),
        (("--server", "http://127.0.0.1:9"), "--tenant"),
        (("--at-once", "0"), "--at-once"),
    ],
)
def test_a_command_line_that_cannot_be_used(place: BatchPlace, arguments: tuple[str, ...], expected: str) -> None:
    found = place.batch(*arguments)
    assert found.exit_code == 2
    assert expected in found.stderr


def test_a_batch_runs_once_at_a_time(place: BatchPlace) -> None:
    state = BatchState(place.root / ".influencerai" / "batches", place.file)
    with state.lock():
        found = place.batch(*DRY)
    assert found.exit_code == 1
    assert "Another process is running the batch" in found.stderr
    assert place.runs == []


@pytest.mark.campaign
def test_a_batch_gives_the_bytes_of_single_trainings(
    place: BatchPlace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place.write(datasets=["data/datasets/ava"])
    rows = place.trained()
    assert all(row["finalLoss"] > 0 for row in rows)
    alone = tmp_path_factory.mktemp("alone")
    write_pictures(alone / "data" / "datasets" / "ava")
    given = document()
    for config, row in zip(given["configs"], rows, strict=True):
        name = row["name"]
        fields = {**given["defaults"], **config, "name": name, "outputPath": f"data/loras/{name}"}
        settings = Settings.load(root=alone)
        run = Trainer(LoraConfig.parse(fields), settings=settings, on_event=lambda event: None).train(
            "data/datasets/ava"
        )
        assert run.lora_path.read_bytes() == place.files()[row["file"]]


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on_to_the_same_bytes(
    place: BatchPlace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [
        {"name": "short", "networkDim": 4, "networkAlpha": 2},
        {"name": "long", "networkDim": 4, "networkAlpha": 2, "epochs": 6},
    ]
    place.write(datasets=["data/datasets/ava"], configs=configs)
    with place.started("--json", "--report", "report.json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            [row] = json_lines(line)
            if row.get("name") == "ava-long" and row["step"] >= 2:
                break
        code, last = interrupt(process)
    assert (code, last["code"], last["exitCode"]) == (130, "stopped", 130)
    assert shlex.split(last["resumeCommand"])[1:5] == ["-m", "influencerai", "batch", str(place.file)]
    report = json.loads((place.root / "report.json").read_text())["trainings"]
    assert [row["status"] for row in report] == ["completed", "stopped"]
    assert len(place.runs) == 2

    found = place.batch("--json")
    assert found.exit_code == 0, found.output
    *events, result = json_lines(found.stdout)
    assert [(row["status"], row["earlier"]) for row in result["trainings"]] == [
        ("completed", True),
        ("completed", False),
    ]
    assert min(event["step"] for event in events if event.get("stage") == "training" and event["step"]) > 2
    assert len(place.runs) == 2

    straight = BatchPlace(tmp_path_factory.mktemp("straight"))
    straight.write(datasets=["data/datasets/ava"], configs=configs)
    monkeypatch.chdir(straight.root)
    straight.trained()
    assert straight.files() == place.files()
