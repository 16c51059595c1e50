"""Captions: where an image's text comes from, which source wins, and what is said about broken ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from influencerai.dataset import DatasetReport, ImageReport, inspect_dataset
from influencerai.dataset.caption_text import clean
from influencerai.dataset.trigger_word import contains_trigger


def add_image(folder: Path, path: str) -> None:
    """A small PNG whose bytes differ with its path."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(hashlib.sha256(path.encode()).digest()[:3])
    Image.new("RGB", (32, 32), colour).save(target, "PNG")


def add_text(folder: Path, path: str, text: str | bytes) -> None:
    (folder / path).write_bytes(text.encode() if isinstance(text, str) else text)


def image(report: DatasetReport, path: str) -> ImageReport:
    return next(image for image in report.images if image.path == path)


def caption(folder: Path, path: str = "a.png", *, trigger_word: str | None = None) -> tuple[str, str]:
    found = image(inspect_dataset(folder, trigger_word=trigger_word), path)
    return found.caption, found.caption_source


def test_each_source_wins_over_the_next(tmp_path: Path) -> None:
    path = "10_ohwx woman/a.png"
    add_image(tmp_path, path)
    (tmp_path / "10_ohwx woman/a.txt").write_text("from txt")
    (tmp_path / "10_ohwx woman/a.caption").write_text("from caption file")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": path, "text": "from jsonl"}))
    (tmp_path / "captions.json").write_text(json.dumps({path: "from json"}))
    found = []
    for source in ("a.txt", "a.caption", "../metadata.jsonl", "../captions.json"):
        found.append(caption(tmp_path, path, trigger_word="sks"))
        (tmp_path / "10_ohwx woman" / source).unlink()
    found.append(caption(tmp_path, path, trigger_word="sks"))
    assert found == [
        ("from txt", "txt"),
        ("from caption file", "txt"),
        ("from jsonl", "metadata.jsonl"),
        ("from json", "captions.json"),
        ("ohwx woman", "folder"),
    ]


def test_the_trigger_word_captions_an_image_that_has_no_caption(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    report = inspect_dataset(tmp_path, trigger_word=" ohwx ")
    assert (report.images[0].caption, report.images[0].caption_source) == ("ohwx", "trigger word")
    assert report.images[0].has_trigger is True
    assert report.captioned_count == 0
    assert any("1 images have no caption and get the trigger word" in note for note in report.notes)


def test_without_any_source_the_caption_is_empty_and_said_to_be_missing(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    found = image(inspect_dataset(tmp_path), "a.png")
    assert (found.caption, found.caption_source, found.has_trigger) == ("", "none", None)
    assert found.warnings == ("The image has no caption.",)


def test_an_empty_caption_file_is_one_finding(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "a.txt", "\n")
    assert image(inspect_dataset(tmp_path), "a.png").warnings == ("a.txt is empty.",)


def test_of_many_foreign_names_in_a_table_the_first_are_listed(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    (tmp_path / "captions.json").write_text(json.dumps({f"{index}.png": "x" for index in range(3000)}))
    found = [warning for warning in inspect_dataset(tmp_path).warnings if warning.startswith("captions.json")]
    assert len(found) == 6
    assert found[0] == "captions.json: there is no image '0.png'."
    assert found[-1] == "captions.json: and 2,995 more names without an image."


@pytest.mark.parametrize("value", ["smiling", 7])
def test_a_name_in_a_table_that_is_not_unicode_can_be_reported(tmp_path: Path, value: object) -> None:
    add_image(tmp_path, "a.png")
    (tmp_path / "captions.json").write_text(json.dumps({"\ud800.png": value}))
    report = inspect_dataset(tmp_path)
    assert "?.png" in json.dumps(report.to_wire(), ensure_ascii=False).encode().decode()


@pytest.mark.parametrize("row", [{"text": "smiling"}, {"caption": "smiling"}])
def test_tables_take_text_or_caption(tmp_path: Path, row: dict[str, str]) -> None:
    add_image(tmp_path, "a.png")
    entry = {"file_name": "a.png", **row}
    (tmp_path / "metadata.jsonl").write_text("\ufeff" + json.dumps(entry) + "\r\n\n", encoding="utf-8")
    assert caption(tmp_path) == ("smiling", "metadata.jsonl")
    (tmp_path / "metadata.jsonl").unlink()
    for document in ([entry], {"a.png": row}, {"a.png": "smiling"}, {"a": "smiling"}, {"./a.png": "smiling"}):
        (tmp_path / "captions.json").write_text(json.dumps(document))
        assert caption(tmp_path) == ("smiling", "captions.json")


def test_a_table_names_files_relative_to_its_folder_and_the_nearest_wins(tmp_path: Path) -> None:
    add_image(tmp_path, "sub/a.png")
    add_image(tmp_path, "sub/b.png")
    (tmp_path / "captions.json").write_text(json.dumps({"sub/a.png": "far", "sub\\b.png": "from Windows"}))
    (tmp_path / "sub/captions.json").write_text(json.dumps({"a.png": "near"}))
    assert caption(tmp_path, "sub/a.png") == ("near", "captions.json")
    assert caption(tmp_path, "sub/b.png") == ("from Windows", "captions.json")


def test_a_table_cannot_reach_outside_the_folder(tmp_path: Path) -> None:
    add_image(tmp_path, "set/a.png")
    (tmp_path / "set/captions.json").write_text(json.dumps({"../set/a.png": "out and in", "../../etc/passwd": "x"}))
    report = inspect_dataset(tmp_path / "set")
    assert report.images[0].caption == ""
    assert [warning for warning in report.warnings if "there is no image" in warning] == [
        "captions.json: there is no image '../set/a.png'.",
        "captions.json: there is no image '../../etc/passwd'.",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "x"}\n\n{"file_name": ',
            "metadata.jsonl: line 3 is not JSON",
        ),
        ("metadata.jsonl", '\n{"text": "x"}', 'metadata.jsonl: line 2 has no "file_name"'),
        ("metadata.jsonl", '{"file_name": "a.png"}', 'line 1 has neither "text" nor "caption"'),
        ("metadata.jsonl", '{"file_name": "a.png", "text": 7}', "caption in line 1 is not a text"),
        ("metadata.csv", "file_name,text\na.png,x,y\n", "metadata.csv: line 2 has 3 cells, but there are 2 columns"),
        ("metadata.csv", 'file_name,text\n"a.png,x\n', "metadata.csv: line 2 is not CSV"),
        ("meta_cap.json", '{"a.png": {"caption": 7}}', "caption in the entry of 'a.png' is not a text"),
        ("metadata.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("captions.json", '{\n  "a.png": "x",\n}', "captions.json: line 3 is not JSON"),
        ("captions.json", '{"a.png": ["x"]}', "the caption in the entry of 'a.png' is not a text"),
        ("captions.json", json.dumps({"a.png": "x" * 70_000}), "entry of 'a.png' is larger than 65,536 bytes"),
        ("captions.json", '["a.png"]', 'entry 1 has no "file_name"'),
        ("captions.json", '"x"', "holds neither"),
        ("captions.json", "[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_table_fails_the_set_and_names_the_line(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, name, text)
    report = inspect_dataset(tmp_path)
    assert report.status == "failed"
    assert len(report.errors) == 1
    assert message in report.errors[0]
    assert "Repair or remove the file." in report.errors[0]


def test_a_null_caption_in_a_table_counts_as_none(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "captions.json", '{"a.png": null}')
    assert caption(tmp_path, trigger_word="ohwx") == ("ohwx", "trigger word")


@pytest.mark.parametrize(
    ("data", "text", "warning"),
    [
        (b"smiling", "smiling", None),
        (b"\xef\xbb\xbfsmiling\r\n", "smiling", None),
        ("lächelnd".encode(), "lächelnd", None),
        ("lächelnd".encode("utf-16"), "lächelnd", None),
        ("lächelnd".encode("cp1252"), "lächelnd", "a.txt is not UTF-8 and is read as Windows-1252."),
        (b"smiling\n\nred hair", "smiling, red hair", "a.txt has 2 lines, which are joined to one caption."),
        (b"  smiling,\t red   hair ", "smiling, red hair", None),
        (b" \n\t", "from the table", "a.txt is empty."),
        (b"x" * 70_000, "from the table", "a.txt: The file is larger than 65,536 bytes."),
    ],
)
def test_text_files_in_the_encodings_that_users_have(
    tmp_path: Path, data: bytes, text: str, warning: str | None
) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "a.txt", data)
    add_text(tmp_path, "captions.json", '{"a.png": "from the table"}')
    found = image(inspect_dataset(tmp_path), "a.png")
    assert found.caption == text
    assert found.warnings == ((warning,) if warning else ())


def test_a_caption_file_without_an_image_is_reported(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "b.txt", "smiling")
    report = inspect_dataset(tmp_path)
    assert "b.txt: there is no image of this name. Give it the name of its image." in report.warnings
    add_text(tmp_path, "c.caption", "smiling")
    report = inspect_dataset(tmp_path)
    many = "2 captions have no image of their name: b.txt, c.caption. Give them the names of their images."
    assert many in report.warnings


def test_a_stem_with_dots_and_a_suffix_in_capitals(tmp_path: Path) -> None:
    add_image(tmp_path, "v1.2 final.png")
    add_text(tmp_path, "v1.2 final.TXT", "smiling")
    assert caption(tmp_path, "v1.2 final.png") == ("smiling", "txt")


@pytest.mark.parametrize(
    ("folder", "repeats", "text"),
    [
        ("10_ohwx woman", 10, "ohwx woman"),
        ("1_ohwx_woman", 1, "ohwx_woman"),
        ("2024_summer", 1, ""),
        ("closeups", 1, ""),
        ("5_ohwx/closeups", 5, "ohwx"),
        ("5_ohwx/2_sks", 2, "sks"),
        ("3_", 3, ""),
    ],
)
def test_kohya_folders_give_repeats_and_caption(tmp_path: Path, folder: str, repeats: int, text: str) -> None:
    add_image(tmp_path, f"{folder}/a.png")
    found = inspect_dataset(tmp_path).images[0]
    assert (found.repeats, found.caption) == (repeats, text)


def test_the_repeats_of_a_kohya_folder_are_noted(tmp_path: Path) -> None:
    for path in ("10_ohwx woman/a.png", "10_ohwx woman/b.png", "sub/2_sks/c.png", "1_once/d.png"):
        add_image(tmp_path, path)
    notes = inspect_dataset(tmp_path).notes
    assert "10_ohwx woman: 10 repeats of 2 images" in notes
    assert "sub/2_sks: 2 repeats of 1 image" in notes
    assert not any("1_once" in note for note in notes)


def test_zero_repeats_leave_a_folder_out(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_image(tmp_path, "0_rejected/b.png")
    report = inspect_dataset(tmp_path)
    assert [image.path for image in report.images] == ["a.png"]
    assert "1 images are left out: their folder's name asks for 0 repeats." in report.warnings


def test_the_datasets_own_name_gives_no_repeats(tmp_path: Path) -> None:
    add_image(tmp_path, "10_ohwx/a.png")
    found = inspect_dataset(tmp_path / "10_ohwx").images[0]
    assert (found.repeats, found.caption) == (1, "")


@pytest.mark.parametrize(
    ("text", "trigger", "found"),
    [
        ("ohwx woman, smiling", "ohwx", True),
        ("a photo of OHWX", "ohwx", True),
        ("魔女が笑う", "魔女", True),
        ("ohwx魔女が笑う", "ohwx", True),
        ("แม่มดยิ้ม", "แม่มด", True),
        ("마녀가 웃는다", "마녀", True),
        ("cafe\u0301 girl", "café", True),
        ("हिन्दी", "हिन", False),
        ("魔女", "魔法", False),
        ("ohwx  woman", "ohwx woman", False),
        ("ohwxwoman", "ohwx", False),
        ("woman", "ohwx", False),
        ("", "ohwx", False),
        ("a (sks) dog", "sks", True),
        ("c++ developer", "c++", True),
        ("élan", "lan", False),
    ],
)
def test_the_trigger_word_is_found_as_whole_words(text: str, trigger: str, found: bool) -> None:
    assert contains_trigger(text, trigger) is found


def test_a_caption_without_the_trigger_word_is_reported(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "a.txt", "smiling")
    found = image(inspect_dataset(tmp_path, trigger_word="ohwx"), "a.png")
    assert found.has_trigger is False
    assert found.warnings == ("The caption lacks the trigger word 'ohwx'.",)


def test_captions_are_always_one_line_of_valid_unicode() -> None:
    assert clean("a\0b\ud800c\r\nIt ends.\u2028Then, this\n") == "a b?c, It ends. Then, this"


@pytest.mark.parametrize(
    "data",
    [
        "file_name,text\na.png,smiling\n",
        "file_name;text\r\na.png;smiling\r\n",
        "File_Name\tCaption\na.png\tsmiling\n",
        "\ufefffile_name,label,text\na.png,1,smiling\n",
        "image,tags\na.png,smiling\n",
        "a.png,smiling\n",
        '"file_name","text"\n"a.png","smiling"\n"b.png",""\n',
    ],
)
@pytest.mark.parametrize("name", ["metadata.csv", "captions.csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_as_csv(tmp_path: Path, data: str, name: str, encoding: str) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, name, data.encode(encoding))
    assert caption(tmp_path, trigger_word="ohwx") == ("smiling", name)


def test_a_csv_without_captions_is_named(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "metadata.csv", "file_name,label\na.png,7\n")
    report = inspect_dataset(tmp_path, trigger_word="ohwx")
    assert report.status == "ready"
    assert any(warning.startswith("metadata.csv: The file holds no captions") for warning in report.warnings)
    assert any("although there are files that look like captions: metadata.csv" in text for text in report.warnings)


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("/home/me/set/10_ohwx/a.png", "10_ohwx/a.png"),
        ("C:\\Users\\me\\set\\10_ohwx\\a.png", "10_ohwx/a.png"),
        ("/elsewhere/a.png", "deep/er/a.png"),
        ("a", "10_ohwx/a.png"),
        ("10_ohwx/a", "10_ohwx/a.png"),
    ],
)
@pytest.mark.parametrize("name", ["meta_cap.json", "meta_lat.json", "meta_clean.json"])
def test_metadata_of_kohyas_trainer(tmp_path: Path, key: str, image: str, name: str) -> None:
    add_image(tmp_path, image)
    add_image(tmp_path, "other.png")
    entries = {key: {"caption": "smiling", "tags": "red hair, ohwx"}, "other": {"train_resolution": [512, 512]}}
    (tmp_path / name).write_text(json.dumps(entries))
    assert caption(tmp_path, image) == ("smiling, red hair, ohwx", "meta_cap.json")
    assert not any("no image" in warning for warning in inspect_dataset(tmp_path).warnings)


def test_a_bare_name_that_two_images_have_is_no_caption_of_either(tmp_path: Path) -> None:
    for path in ("10_ohwx/a.png", "5_sks/a.png"):
        add_image(tmp_path, path)
    add_text(tmp_path, "meta_cap.json", '{"a": {"caption": "smiling"}}')
    report = inspect_dataset(tmp_path)
    assert "meta_cap.json: there is no image 'a'." in report.warnings


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".tags", ".png.txt", ".TXT"])
def test_captions_beside_the_image(tmp_path: Path, suffix: str) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, f"a{suffix}", "smiling")
    assert caption(tmp_path) == ("smiling", "txt")
    assert not inspect_dataset(tmp_path).images[0].warnings


def test_an_empty_caption_file_gives_way_and_a_second_one_is_noted(tmp_path: Path) -> None:
    for name, text in {"a.txt": "", "a.caption": "smiling", "a.tags": "red hair"}.items():
        add_text(tmp_path, name, text)
    add_image(tmp_path, "a.png")
    report = inspect_dataset(tmp_path)
    assert report.images[0].caption == "smiling"
    assert any("a.tags" in note for note in report.notes)


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("image_name", "other_name"), [(NFD, NFC), (NFC, NFD)])
def test_names_are_compared_in_one_unicode_form(tmp_path: Path, image_name: str, other_name: str) -> None:
    for folder, file, text in (
        ("txt", f"{other_name}.txt", "smiling"),
        ("jsonl", "metadata.jsonl", json.dumps({"file_name": f"{other_name}.png", "text": "smiling"})),
        ("csv", "metadata.csv", f"file_name,text\n{other_name}.png,smiling\n"),
        ("kohya", "meta_cap.json", json.dumps({f"/x/{other_name}.png": {"caption": "smiling"}})),
    ):
        add_image(tmp_path / folder, f"{image_name}.png")
        add_text(tmp_path / folder, file, text)
        report = inspect_dataset(tmp_path / folder)
        assert (folder, report.images[0].caption) == (folder, "smiling")
        assert not any("no image" in warning for warning in report.warnings)


def test_names_that_differ_in_case_belong_together_and_that_is_noted(tmp_path: Path) -> None:
    add_image(tmp_path, "IMG_1.JPG")
    add_text(tmp_path, "img_1.txt", "smiling")
    report = inspect_dataset(tmp_path)
    assert report.images[0].caption == "smiling"
    assert "Names differ in case or Unicode form only: img_1.txt for IMG_1.JPG." in report.notes


def test_images_that_differ_in_form_only_are_named(tmp_path: Path) -> None:
    for name in (f"{NFC}.png", f"{NFD}.png"):
        add_image(tmp_path, name)
    assert any("Rename one of them" in warning for warning in inspect_dataset(tmp_path).warnings)


def test_images_that_share_a_caption_are_named(tmp_path: Path) -> None:
    for name in ("01.png", "01.jpg", "02.png"):
        add_image(tmp_path, name)
        add_text(tmp_path, f"{name[:2]}.txt", "smiling")
    report = inspect_dataset(tmp_path)
    assert [image.caption for image in report.images] == ["smiling"] * 3
    (warning,) = (text for text in report.warnings if "share" in text)
    assert "01.jpg and 01.png (01.txt)" in warning


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dataset.json", '{"a.png": "smiling"}'),
        ("captions.tsv", "a.png\tsmiling\n"),
        ("a.json", '{"caption": "smiling"}'),
        ("a.prompt", "smiling"),
        ("b.txt", "smiling"),
        ("captions.yaml", "a.png: smiling"),
        ("list.toml", '"a.png" = "smiling"'),
        ("a.md", "smiling"),
        ("tags.xml", "<tags/>"),
        ("train.parquet", "PAR1"),
        ("metadata.csv", "file_name,text\n"),
        ("captions.csv", "file_name,text\na.png,\n"),
        ("captions.json", "{}"),
        ("a.txt", "\1\2\3\4"),
    ],
)
def test_the_trigger_word_as_caption_weighs_more_where_captions_lie_unused(
    tmp_path: Path, file: str, text: str
) -> None:
    add_image(tmp_path, "a.png")
    note = "1 images have no caption and get the trigger word as theirs"
    assert f"{note}." in inspect_dataset(tmp_path, trigger_word="ohwx").notes
    add_text(tmp_path, file, text)
    report = inspect_dataset(tmp_path, trigger_word="ohwx")
    assert f"{note}, although there are files that look like captions: {file}." in report.warnings
    assert report.warnings[-2 if len(report.images) < 5 else -1].startswith(note)


def test_captions_without_a_byte_order_mark_in_utf16(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "a.txt", "ohwx woman".encode("utf-16-le"))
    assert caption(tmp_path) == ("ohwx woman", "txt")


@pytest.mark.parametrize(
    "data",
    [
        b"ohwx woman\x1a",
        b"ohwx woman\r\n\x1a",
        b"ohwx woman\x1a\x1a\0\0\r\n",
        b"ohwx woman" + bytes(118),
        b"ohwx woman\0",
        b"ohwx woma\xe2\x80\x8bn\x7f",
        b"\xef\xbb\xbfohwx\xef\xbb\xbf woman",
        b"\x1boh\x07wx \xe2\x80\xaewoman\xe2\x80\xac",
        "ohwx woman".encode("utf-16") + b"\x1a",
        "ohwx woman\x1a".encode("utf-16-le"),
        "ohwx woman\0\0".encode("utf-16-be"),
    ],
)
def test_marks_and_controls_that_nobody_sees_are_no_part_of_a_caption(tmp_path: Path, data: bytes) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "a.txt", data)
    assert caption(tmp_path) == ("ohwx woman", "txt")


def test_joiners_of_scripts_and_emojis_stay(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_text(tmp_path, "a.txt", text := "می‌خندد 👩‍🦰")
    assert caption(tmp_path) == (text, "txt")
