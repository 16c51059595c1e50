"""Inspection of a folder: what is listed, in which order, and what is wrong with which file."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from influencerai.dataset import DatasetReport, inspect_dataset, samples
from influencerai.errors import DatasetError
from influencerai.files import output_folder
from tests.png_files import RGB, png

NOBODY = 65534
"""The user id without rights on Linux."""


def add_image(folder: Path, path: str, *, shade: int = 0, size: tuple[int, int] = (32, 32)) -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.Random(shade).randbytes(3 * size[0] * size[1])
    Image.frombytes("RGB", size, pixels).save(target, "PNG")
    return target


def paths(report: DatasetReport) -> list[str]:
    return [image.path for image in report.images]


def error_of(report: DatasetReport, path: str) -> str:
    (found,) = (image for image in report.images if image.path == path)
    assert not found.usable
    return " ".join(found.errors)


def test_a_good_set_is_ready_and_gives_its_samples(tmp_path: Path) -> None:
    for index in range(15):
        target = add_image(tmp_path, f"{index:02}.png", shade=index, size=(32, 48))
        target.with_suffix(".txt").write_text(f"ohwx, picture {index}")
    report = inspect_dataset(tmp_path, trigger_word="ohwx", resolution=32)
    assert report.status == "ready"
    assert (report.image_count, report.usable_count, report.captioned_count) == (15, 15, 15)
    assert (report.error_count, report.warning_count, report.notes) == (0, 0, ())
    report.raise_if_unusable()
    found = samples(report)
    assert [sample.path for sample in found] == [f"{index:02}.png" for index in range(15)]
    assert found[3].caption == "ohwx, picture 3"
    assert (found[3].width, found[3].height, found[3].repeats) == (32, 48, 1)
    assert found[3].sha256 == hashlib.sha256((tmp_path / "03.png").read_bytes()).hexdigest()


def test_the_report_survives_the_wire(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    report = inspect_dataset(tmp_path, trigger_word="ohwx")
    wire = report.to_wire()
    assert wire["usableCount"] == 1
    assert wire["images"][0]["captionSource"] == "trigger word"
    assert DatasetReport.parse(wire) == report


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    (found,) = inspect_dataset(tmp_path).images
    assert (found.width, found.height, found.format) == (30, 40, "JPEG")


def test_subfolders_count_and_hidden_ones_do_not(tmp_path: Path) -> None:
    for path in (
        "b/c.png",
        "b.png",
        "a/z.png",
        ".hidden.png",
        ".influencerai/cache/x.png",
        ".influencerai-cache/x.png",
        "__MACOSX/b.png",
        "@eaDir/b.png",
        "b/__pycache__/x.png",
    ):
        add_image(tmp_path, path, shade=len(path))
    (tmp_path / "notes.md").write_text("no image")
    (tmp_path / "latents.npz").write_bytes(b"PK\x03\x04")
    assert paths(inspect_dataset(tmp_path)) == ["a/z.png", "b.png", "b/c.png"]


def test_the_order_is_that_of_the_paths_whatever_the_file_system_says(tmp_path: Path) -> None:
    names = ["é.png", "Z.png", "a.png", "10.png", "9.png", "ß.png", "名前.png", "a b.png", "a\nb.png"]
    reports = []
    for folder, order in (("one", names), ("two", names[::-1])):
        for name in order:
            add_image(tmp_path / folder, name, shade=names.index(name))
        reports.append(inspect_dataset(tmp_path / folder))
    assert paths(reports[0]) == sorted(names)
    assert samples(reports[0]) == samples(reports[1])


def test_one_bad_image_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    good = add_image(tmp_path, "good.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-30])
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "bomb.png").write_bytes(png((50_000, 50_000), color_type=RGB, rows=[]))
    (tmp_path / "clip.gif").write_bytes(b"\xff\x0a")
    report = inspect_dataset(tmp_path)
    assert report.status == "ready"
    assert [image.path for image in report.usable] == ["good.png"]
    assert [sample.path for sample in samples(report)] == ["good.png"]
    assert report.error_count == 5
    assert "The PNG data is truncated or corrupt" in error_of(report, "cut.png")
    assert error_of(report, "text.png") == (
        "This is a text file by content. Replace it by the picture. A caption has the name of its picture, with .txt."
    )
    assert error_of(report, "empty.jpg") == "The file is empty. Copy or download it again."
    assert "more than 67,108,864 pixels" in error_of(report, "bomb.png")
    assert "This is a JPEG XL file by content." in error_of(report, "clip.gif")


def test_the_cap_on_pixels_is_the_callers(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png", size=(33, 32))
    assert "more than 1,024 pixels" in error_of(inspect_dataset(tmp_path, max_pixels=1024), "a.png")


def test_the_summary_names_what_is_left_out_and_each_warning_once(tmp_path: Path) -> None:
    for index in range(6):
        image = add_image(tmp_path, f"{index}.png", shade=index, size=(64, 64))
        image.with_suffix(".txt").write_text("smiling")
    (tmp_path / "5.txt").write_text("ohwx,\nsmiling")
    (tmp_path / "orphan.txt").write_text("smiling")
    for name in ("bad1.png", "bad2.png", "bad3.png", "bad4.png"):
        (tmp_path / name).touch()
    report = inspect_dataset(tmp_path, trigger_word="ohwx")
    empty = ", ".join(f"bad{number}.png (The file is empty. Copy or download it again)" for number in (1, 2, 3))
    assert report.summary == (
        f"4 of 10 images are left out: {empty} and 1 more.",
        "5 images: The caption lacks the trigger word 'ohwx'. (0.png, 1.png, 2.png and 2 more)",
        "5.png: 5.txt has 2 lines, which are joined to one caption.",
        "orphan.txt: there is no image of this name. Give it the name of its image.",
    )


def test_an_image_that_cannot_be_used_is_not_warned_about_too(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "b.txt").write_text("smiling")
    report = inspect_dataset(tmp_path, trigger_word="ohwx")
    assert [image.warnings for image in report.images] == [(), ()]


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_an_animation_is_warned_about(tmp_path: Path, format_: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{format_.lower()}", format_, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / f"b.{format_.lower()}", format_)
    warning = "The file is an animation, of which the first frame is used."
    assert [warning in image.warnings for image in inspect_dataset(tmp_path).images] == [True, False]


@pytest.mark.slow
def test_folders_may_be_nested_deeper_than_python_calls(tmp_path: Path) -> None:
    deepest = "/".join(["d"] * 1000)
    subprocess.run(["mkdir", "-p", tmp_path / deepest], check=True)  # pathlib recurses too
    add_image(tmp_path, "b.png")
    shutil.copy(tmp_path / "b.png", tmp_path / deepest / "a.png")
    try:
        assert paths(inspect_dataset(tmp_path)) == ["b.png", f"{deepest}/a.png"]
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # as does what pytest cleans up with


def test_a_strip_is_refused(tmp_path: Path) -> None:
    add_image(tmp_path, "strip.png", size=(170, 10))
    add_image(tmp_path, "wide.png", size=(160, 10))
    report = inspect_dataset(tmp_path)
    assert (
        error_of(report, "strip.png")
        == "The sides, 170 x 10, differ by more than 1:16. Crop it to what you want to train on."
    )
    assert [image.path for image in report.usable] == ["wide.png"]


def test_content_counts_where_the_name_lies_or_says_nothing(tmp_path: Path) -> None:
    add_image(tmp_path, "a.jpg")
    add_image(tmp_path, "b", shade=1)
    add_image(tmp_path, "c.dat", shade=2)
    report = inspect_dataset(tmp_path)
    assert [(image.path, image.format) for image in report.usable] == [("a.jpg", "PNG"), ("b", "PNG"), ("c.dat", "PNG")]
    for image in report.images:
        assert "The file is PNG by content, which its name does not say." in image.warnings


def test_duplicates_and_small_images_are_reported(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    add_image(tmp_path, "b.png", shade=9, size=(64, 64))
    add_image(tmp_path, "c.png")
    report = inspect_dataset(tmp_path, resolution=64)
    assert [image.duplicate_of for image in report.images] == [None, None, "a.png"]
    assert report.usable_count == 3
    small = "The image, 32 x 32, is smaller than the training resolution 64 and is enlarged."
    assert [small in image.warnings for image in report.images] == [True, False, True]
    assert "The file has the same bytes as a.png." in report.images[2].warnings


@pytest.mark.parametrize(("count", "warned", "noted"), [(4, True, False), (5, False, True), (14, False, True)])
def test_few_images_are_remarked_on(tmp_path: Path, count: int, warned: bool, noted: bool) -> None:
    for index in range(count):
        add_image(tmp_path, f"{index}.png", shade=index)
    report = inspect_dataset(tmp_path)
    assert any("use 15 to 30" in warning for warning in report.warnings) is warned
    assert (f"There are {count} images; 15 to 30 are recommended." in report.notes) is noted


def test_links_that_leave_the_folder_are_not_opened(tmp_path: Path) -> None:
    secret = add_image(tmp_path, "outside/secret.png")
    (tmp_path / "outside/captions.json").write_text("secret, and no JSON")
    (tmp_path / "outside/secret.txt").write_text("secret text")
    folder = tmp_path / "set"
    add_image(folder, "a.png")
    (folder / "link.png").symlink_to(secret)
    (folder / "captions.json").symlink_to(tmp_path / "outside/captions.json")
    (folder / "a.txt").symlink_to(tmp_path / "outside/secret.txt")
    (folder / "album").symlink_to(tmp_path / "outside")
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    (folder / "loop").symlink_to(folder / "loop")
    report = inspect_dataset(folder)
    assert [image.path for image in report.usable] == ["a.png"]
    for path in ("link.png", "captions.json", "a.txt"):
        assert "The file is a link that leaves the folder" in error_of(report, path)
    assert "The folder is a link that leaves the dataset" in error_of(report, "album")
    for path in ("gone.png", "loop"):
        assert error_of(report, path) == "The file is a link to nothing."
    assert "secret text" not in report.model_dump_json()


def test_links_within_the_folder_are_the_files_they_name(tmp_path: Path) -> None:
    add_image(tmp_path, "sub/a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "sub/a.png")
    (tmp_path / "again").symlink_to(tmp_path)
    report = inspect_dataset(tmp_path)
    assert [(image.path, image.duplicate_of) for image in report.usable] == [("b.png", None), ("sub/a.png", "b.png")]
    assert "again is a link to a folder and is not followed." in report.warnings


def test_a_folder_reached_through_a_link_is_the_folder(tmp_path: Path) -> None:
    add_image(tmp_path, "real/a.png")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert paths(inspect_dataset(tmp_path / "alias")) == ["a.png"]


def test_a_named_pipe_is_an_error_and_does_not_hang(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "a.txt")
    report = inspect_dataset(tmp_path)
    assert error_of(report, "pipe.png") == "This is not a regular file."
    assert "a.txt: This is not a regular file." in report.images[0].warnings


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses such a name, so no folder can hold it")
def test_a_name_that_is_not_unicode_is_an_error(tmp_path: Path) -> None:
    good = add_image(tmp_path, "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(good.read_bytes())
    report = inspect_dataset(tmp_path)
    assert "not valid UTF-8" in error_of(report, "\\xff.png")
    assert report.to_wire()["usableCount"] == 1


def test_an_unusable_folder_says_why_and_what_to_do(tmp_path: Path) -> None:
    file = add_image(tmp_path, "a.png")
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, message in (
        (tmp_path / "gone", "The folder does not exist. Check the path."),
        (tmp_path / "nul\0", "The folder does not exist. Check the path."),
        (file, "This is a file. Name the folder that holds the images."),
        (empty, "It holds no images. Put JPEG, PNG or WebP files into it."),
    ):
        report = inspect_dataset(folder)
        assert report.status == "failed"
        assert report.errors == (message,)
        with pytest.raises(DatasetError, match="cannot be trained on") as raised:
            report.raise_if_unusable()
        assert str(folder) in str(raised.value)
        assert message in str(raised.value)
        with pytest.raises(DatasetError):
            samples(report)


def test_a_folder_with_nothing_usable_gives_the_first_reasons(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    report = inspect_dataset(tmp_path)
    assert report.status == "failed"
    with pytest.raises(
        DatasetError, match=r"None of its 5 images can be used\. 0\.png: This is a text file.* And 2 more\."
    ):
        report.raise_if_unusable()


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything, so it becomes nobody for the time of a block."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        add_image(folder, "a.png")
        add_image(folder, "b.png", shade=1).chmod(0)
        inspect_dataset(folder)  # Pillow imports its plugins at the first image, which nobody may not read
        with ordinary_user():
            report = inspect_dataset(folder)
    assert error_of(report, "b.png") == "The file cannot be read: Permission denied."


@pytest.mark.parametrize("output", ["out", ".", "data/loras/me"])
def test_the_files_of_a_run_in_the_dataset_change_nothing(tmp_path: Path, output: str) -> None:
    add_image(tmp_path, "a.png")
    add_image(tmp_path, "b/c.png", shade=1)
    before = samples(inspect_dataset(tmp_path))
    folder = output_folder.reserve_output(tmp_path / output, "0123456789ab")
    for name in ("samples/epoch-0001-0-ohwx.png", "samples.png", "loss.png"):
        add_image(folder, name, shade=9)
    (folder / "me-final.safetensors").touch()
    report = inspect_dataset(tmp_path)
    assert samples(report) == before
    (left_out,) = report.left_out
    assert (left_out.kind, left_out.count) == ("file of a run", 4)
    assert any("4 files of runs" in note for note in report.notes)


def test_links_that_leave_the_folder_are_followed_for_a_user_of_this_machine(tmp_path: Path) -> None:
    add_image(tmp_path, "blobs/x")
    add_image(tmp_path, "album/b.png", shade=1)
    (tmp_path / "album/b.txt").write_text("smiling")
    (tmp_path / "album/up").symlink_to(tmp_path)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "1.png").symlink_to("../blobs/x")
    (folder / "album").symlink_to(tmp_path / "album")
    (folder / "again").symlink_to(tmp_path / "album")
    report = inspect_dataset(folder, follow_links=True)
    assert paths(report) == ["1.png", "again/b.png"]
    assert report.images[1].caption == "smiling"
    assert "Links that leave the folder are followed: 1.png, again." in report.notes
    assert "album is a link to a folder and is not followed." in report.warnings
    assert inspect_dataset(folder).usable_count == 0


def portrait(seed: int, *, size: tuple[int, int] = (96, 128)) -> Image.Image:
    """A smooth picture of its own for each seed."""
    noise = Image.frombytes("RGB", (6, 8), random.Random(seed).randbytes(144))
    return noise.resize(size, Image.Resampling.BICUBIC)


def test_pictures_on_their_side_are_noticed(tmp_path: Path) -> None:
    for seed in range(8):
        portrait(seed).save(tmp_path / f"{seed}.jpg")
    portrait(8).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "8.jpg")
    portrait(9, size=(160, 100)).save(tmp_path / "9.jpg")
    report = inspect_dataset(tmp_path)
    (warning,) = (text for text in report.warnings if "on their side" in text)
    assert "8.jpg. Look" in warning
    assert "1 of 10 images are wider than high: 9.jpg. Does one lie on its side?" in report.notes


def test_one_colour_and_the_same_picture_twice_are_noticed(tmp_path: Path) -> None:
    for seed in range(3):
        portrait(seed).save(tmp_path / f"{seed}.png")
    portrait(0).save(tmp_path / "again.jpg", quality=60)
    portrait(1).resize((48, 64)).save(tmp_path / "small.webp")
    Image.new("RGB", (96, 128)).save(tmp_path / "black.png")
    Image.new("RGB", (96, 128), "grey").save(tmp_path / "grey.png")
    report = inspect_dataset(tmp_path)
    flat = "Nearly one colour, so there is nothing to learn from: black.png, grey.png."
    assert flat in report.warnings
    alike = "Probably the same picture: 0.png and again.jpg, 1.png and small.webp. Keep one of each."
    assert alike in report.notes


def test_masks_that_no_name_tells_and_tiny_pictures_are_noticed(tmp_path: Path) -> None:
    for seed in range(2):
        portrait(seed).save(tmp_path / f"{seed}.png")
    mask = Image.new("RGB", (96, 128))
    mask.paste("white", (30, 40, 70, 100))
    mask.save(tmp_path / "a.png")
    mask.convert("L").point(lambda value: 255 - value).save(tmp_path / "b.jpg")
    drawing = Image.new("L", (96, 128), "white")
    ImageDraw.Draw(drawing).ellipse((20, 20, 70, 100), outline="black", width=2)
    drawing.save(tmp_path / "drawing.png")
    portrait(2).resize((48, 63)).save(tmp_path / "tiny.png")
    masks = (
        "Black and white areas alone, as masks have them: a.png, b.jpg. Take them out of the folder if they are masks."
    )
    tiny = "A side has less than 64 pixels, so there is little to learn from: tiny.png. Use larger copies."
    assert {masks, tiny} <= set(inspect_dataset(tmp_path).warnings)
    of_training = inspect_dataset(tmp_path, resolution=64)
    assert tiny not in of_training.warnings
    assert any("smaller than the training resolution" in text for text in of_training.images[-1].warnings)


@pytest.mark.parametrize(("format_", "what"), [("GIF", "is an animation"), ("TIFF", "has several pages")])
def test_of_which_frame_or_page_is_used_is_said(tmp_path: Path, format_: str, what: str) -> None:
    add_image(tmp_path, "a.png")
    portrait(0).save(tmp_path / f"b.{format_.lower()}", format_, save_all=True, append_images=[portrait(1)])
    image = inspect_dataset(tmp_path).images[1]
    assert image.usable
    assert image.format == format_
    assert image.warnings[-1].startswith(f"The file {what}, of which the first ")
