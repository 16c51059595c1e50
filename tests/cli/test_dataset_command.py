from __future__ import annotations

from pathlib import Path

from influencerai.demo.characters import list_characters
from tests.cli.conftest import Invoke, json_lines
from tests.training_runs import write_dataset


def test_a_good_folder_shows_sizes_and_steps(invoke: Invoke) -> None:
    arguments = ("--resolution", "128", "--batch-size", "2", "--repeats", "4", "--epochs", "5")
    result = invoke("dataset", "check", "data/faces", *arguments)
    assert result.exit_code == 0, result.output
    assert "128 x 128" in result.stdout
    assert "12 images per epoch in 6 steps; 30 steps in 5 epochs" in result.stdout


def test_what_is_wrong_is_shown_with_its_file(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    (folder / "00.txt").write_text("a woman")
    (folder / "broken.png").write_bytes((folder / "01.png").read_bytes()[:100])
    result = invoke("dataset", "check", folder, "--trigger-word", "ohwx", "--resolution", "128")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("error") and "broken.png" in line for line in lines)
    assert any(line.startswith("warning") and "00.png" in line and "'ohwx'" in line for line in lines)
    assert "1 error" in result.stdout
    assert "5 images per epoch" in result.stdout


def test_the_same_as_json(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", count=2)
    (folder / "broken.png").write_bytes(b"no picture")
    result = invoke("dataset", "check", folder, "--resolution", "128", "--json")
    assert result.exit_code == 1
    (document,) = json_lines(result.stdout)
    assert document["dataset"]["usableCount"] == 2
    assert [image["path"] for image in document["dataset"]["images"] if image["errors"]] == ["broken.png"]
    assert document["plan"]["stepsPerEpoch"] == 2
    assert sum(bucket["images"] for bucket in document["plan"]["buckets"]) == 2


def test_a_folder_without_images_has_no_plan(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("dataset", "check", tmp_path, "--json")
    assert result.exit_code == 1
    (document,) = json_lines(result.stdout)
    assert document["plan"] is None
    assert document["dataset"]["status"] == "failed"


def test_a_file_name_that_looks_like_markup_is_shown_as_it_is(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    (folder / "[red]x.png").write_bytes(b"no picture")
    assert "[red]x.png" in invoke("dataset", "check", folder, "--resolution", "128").stdout


def test_the_same_finding_on_many_files_is_one_row(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", count=5)
    for caption in folder.glob("*.txt"):
        caption.write_text("smiling")
    result = invoke("dataset", "check", folder, "--trigger-word", "sks", "--resolution", "128")
    (line,) = (line for line in result.stdout.splitlines() if "lacks the trigger word" in line)
    assert line.startswith("warning")
    assert "00.png and 4 more" in line


def test_control_characters_of_a_file_name_do_not_reach_the_terminal(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    (folder / "\x1b[2J\a\x9b.png").write_bytes(b"no picture")
    printed = invoke("dataset", "check", folder, "--resolution", "128").stdout
    assert r"\x1b[2J\x07\x9b.png" in printed
    assert not {"\x1b", "\a", "\x9b"} & set(printed)


def test_nor_do_those_in_an_error(invoke: Invoke) -> None:
    printed = invoke("train", "data/\x1b]0;x\a", "--model", "none").stderr
    assert r"\x1b]0;x\x07" in printed
    assert "\x1b" not in printed


def test_a_sample_character_is_written_and_passes_the_check(invoke: Invoke, tmp_path: Path) -> None:
    name = list_characters()[-1]
    result = invoke("dataset", "demo", tmp_path / "out", "--character", name, "--json")
    assert result.exit_code == 0, result.output
    (document,) = json_lines(result.stdout)
    assert (document["character"], document["imageCount"]) == (name, 20)
    check = invoke("dataset", "check", tmp_path / "out", "--trigger-word", "ohwx", "--resolution", "128", "--json")
    assert check.exit_code == 0, check.output
    assert json_lines(check.stdout)[0]["dataset"]["warningCount"] == 0


def test_characters_are_not_mixed_in_one_folder(invoke: Invoke, tmp_path: Path) -> None:
    first, second = list_characters()[:2]
    for _ in range(2):
        assert invoke("dataset", "demo", tmp_path, "--character", first).exit_code == 0
    result = invoke("dataset", "demo", tmp_path, "--character", second)
    assert result.exit_code == 1
    assert f"not of '{second}'" in result.stderr
    assert not any(path.name.startswith(second) for path in tmp_path.iterdir())


def test_an_unknown_character_is_answered_with_the_known_ones(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("dataset", "demo", tmp_path / "out", "--character", "nobody")
    assert result.exit_code == 2
    assert all(name in result.stderr for name in list_characters())
    assert not (tmp_path / "out").exists()


def test_what_cropping_leaves_is_shown_per_size(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    arguments = ("dataset", "check", folder, "--resolution", "128", "--no-aspect-ratio-buckets")
    result = invoke(*arguments)
    assert "128 x 128 5 77%, at least 64%" in " ".join(result.stdout.split())
    assert "3 images lose a third or more to cropping: 04.png (64% is kept)" in " ".join(result.stdout.split())
    (document,) = json_lines(invoke(*arguments, "--json").stdout)
    assert document["plan"]["cropped"][0] == {"path": "04.png", "kept": 0.637}
    assert document["plan"]["buckets"][0]["leastKept"] == 0.637


def test_a_contact_sheet_is_written_beside_the_report(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    for _ in range(2):
        arguments = ("--resolution", "128", "--contact-sheet", folder / "sheet.png", "--json")
        result = invoke("dataset", "check", folder, *arguments)
        (document,) = json_lines(result.stdout)
        assert document["dataset"]["imageCount"] == 5
        assert document["contactSheet"] == str(folder / "sheet.png")
    assert (folder / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert invoke("dataset", "check", folder, "--contact-sheet", "sheet.gif").exit_code == 2


def test_strict_counts_warnings_and_verbose_names_every_file(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    for caption in folder.glob("*.txt"):
        caption.write_text("smiling")
    (folder / "00-masklabel.png").write_bytes((folder / "01.png").read_bytes())
    arguments = ("dataset", "check", folder, "--trigger-word", "sks", "--resolution", "128")
    assert invoke(*arguments).exit_code == 0
    result = invoke(*arguments, "--strict", "--verbose")
    assert result.exit_code == 1
    assert all(f"{index:02}.png" in result.stdout for index in range(5))
    assert "1 x mask" in result.stdout


def test_the_images_that_are_left_out_are_counted(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    (folder / "broken.png").write_bytes(b"no picture")
    result = invoke("dataset", "check", folder, "--resolution", "128")
    assert "1 of 6 images are left out: broken.png." in result.stdout
