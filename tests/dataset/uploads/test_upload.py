"""Uploads: bad input changes nothing, no file is ever half written, and the same upload completes a killed one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from influencerai.dataset import inspect_dataset
from influencerai.dataset.uploads.staging import clear_leftovers, locked, remove_traces
from influencerai.dataset.uploads.upload import Upload, UploadLimits
from influencerai.dataset.uploads.upload_report import UploadReport
from influencerai.dataset.uploads.uploaded_files import remove_uploaded, write_caption
from influencerai.errors import InfluencerAIError, NotFoundError, ValidationError
from tests.dataset.test_inspection import NOBODY, ordinary_user
from tests.dataset.uploads.test_archive import zipped
from tests.dataset.uploads.test_received_names import AWKWARD
from tests.png_files import RGB, png

MANIFEST = ".influencerai-uploads.json"
STAGING = ".influencerai-upload-*"

processes = multiprocessing.get_context("spawn")


def picture(shade: int = 0, format_: str = "PNG", size: tuple[int, int] = (24, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(buffer, format_)
    return buffer.getvalue()


def upload(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    replace: bool = False,
    captions: Mapping[str, str] | None = None,
    **limits: Any,
) -> UploadReport:
    with Upload(folder, limits=UploadLimits(**limits)) as staged:
        for name, data in files.items():
            staged.add(name, io.BytesIO(data))
        for name, text in (captions or {}).items():
            staged.caption(name, text)
        return staged.commit(replace=replace)


def upload_archive(folder: Path, archive: bytes) -> UploadReport:
    with Upload(folder) as staged:
        staged.add_archive(io.BytesIO(archive))
        return staged.commit()


def errors(folder: Path, files: Mapping[str, bytes], **options: Any) -> dict[str, list[str]]:
    """What is wrong with an upload, after a look that it changed nothing."""
    before = contents(folder)
    existed = folder.exists()
    with pytest.raises(ValidationError) as error:
        upload(folder, files, **options)
    assert contents(folder) == before
    assert folder.exists() == existed
    return error.value.field_errors


def contents(folder: Path) -> dict[str, bytes | str]:
    """Everything in the folder, hidden files and links too, but the lock of a folder that has uploads."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file() and path.name != ".influencerai-uploads.lock":
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}


def manifest(folder: Path) -> dict[str, str]:
    document = json.loads((folder / MANIFEST).read_bytes())
    assert isinstance(document, dict)
    return document


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class TestUpload:
    def test_images_captions_and_tables_arrive_together(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "me"
        files = {
            "a.png": picture(1),
            "b.jpg": picture(2, "JPEG"),
            "c.webp": picture(3, "WEBP"),
            "a.txt": b"ohwx, red",
            "metadata.jsonl": b'{"file_name": "b.jpg", "text": "ohwx, blue"}\n',
            "captions.json": b'{"c.webp": "ohwx, green"}',
        }
        report = upload(folder, files)
        assert report.to_wire() == {
            "added": sorted(files),
            "replaced": [],
            "unchanged": [],
            "captionCount": 1,
            "skipped": [],
            "renamed": [],
            "warnings": [],
        }
        assert visible(folder) == files
        assert manifest(folder) == {name: sha256(data) for name, data in files.items()}
        assert not list(folder.glob(STAGING))
        found = inspect_dataset(folder)
        assert found.status == "ready"
        assert {image.path: image.caption for image in found.images} == {
            "a.png": "ohwx, red",
            "b.jpg": "ohwx, blue",
            "c.webp": "ohwx, green",
        }
        assert len(found.warnings) == 3  # few images, small and each of one colour

    def test_an_archive_keeps_the_paths_below_its_top(self, tmp_path: Path) -> None:
        """kohya's folders mean the same as on a disk, and a name may be in several folders."""
        files = {
            "set/10_ohwx woman/01.png": picture(1),
            "set/10_ohwx woman/02.png": picture(2),
            "set/2_ohwx woman full body/01.png": picture(3),
            "set/2_ohwx woman full body/01.txt": b"ohwx woman, standing",
        }
        on_disk = tmp_path / "disk"
        for name, data in files.items():
            (on_disk / name).parent.mkdir(parents=True, exist_ok=True)
            (on_disk / name).write_bytes(data)
        for slash in ("/", "\\"):
            archive = zipped({name.replace("/", slash): data for name, data in files.items()})
            report = upload_archive(tmp_path / f"me{ord(slash)}", archive)
            assert list(report.added) == sorted(name.removeprefix("set/") for name in files)
            found = inspect_dataset(tmp_path / f"me{ord(slash)}").images
            assert found == inspect_dataset(on_disk / "set").images
            assert [(image.repeats, image.caption) for image in found] == [
                (10, "ohwx woman"),
                (10, "ohwx woman"),
                (2, "ohwx woman, standing"),
            ]

    @pytest.mark.parametrize(
        ("names", "stored"),
        [
            (["set/a.png", "set/sub/b.png", "__MACOSX/set/._a.png", "set/.DS_Store"], ["a.png", "sub/b.png"]),
            (["10_ohwx/a.png", "10_ohwx/b.png"], ["10_ohwx/a.png", "10_ohwx/b.png"]),
            (["one/a.png", "two/a.png"], ["one/a.png", "two/a.png"]),
            (["me/a.png", "../../b.png", "/etc/c.png"], ["b.png", "c.png", "me/a.png"]),
        ],
    )
    def test_the_top_of_an_archive_is_one_folder_that_holds_all(
        self, tmp_path: Path, names: list[str], stored: list[str]
    ) -> None:
        archive = zipped({name: picture(number) for number, name in enumerate(names)})
        assert list(upload_archive(tmp_path / "me", archive).added) == stored
        assert [path.name for path in tmp_path.iterdir()] == ["me"]

    def test_what_is_neither_picture_nor_caption_is_left_out_and_listed(self, tmp_path: Path) -> None:
        report = upload(
            tmp_path / "me",
            {
                "01.png": picture(1),
                "01.caption": b"ohwx, red",
                "01_0024x0024_sd.npz": zipped({"latents.npy": b"x"}),
                "01-masklabel.png": picture(2),
                "scan.png": b"8BPS" + bytes(20),
                "phone.jxl": b"\xff\x0a" + bytes(20),
                "page.png": b"<html>no picture",
                "inner.zip": zipped({"a.png": picture()}),
                "setup.exe": b"MZ",
                ".DS_Store": b"x",
                "Thumbs.db": b"x",
                "x.jpg.crdownload": picture(3, "JPEG"),
                "lost.txt": b"ohwx",
                "README.md": b"# About",
            },
        )
        assert report.added == ("01.caption", "01.png")
        assert visible(tmp_path / "me").keys() == {"01.caption", "01.png"}
        reasons = {file.name: file.reason for file in report.skipped}
        assert reasons.keys() == {
            *(
                "01_0024x0024_sd.npz",
                "01-masklabel.png",
                "scan.png",
                "phone.jxl",
                "page.png",
                "inner.zip",
                "setup.exe",
            ),
            *(".DS_Store", "Thumbs.db", "x.jpg.crdownload", "lost.txt", "README.md"),
        }
        assert "Photoshop" in reasons["scan.png"]
        assert "JPEG XL" in reasons["phone.jxl"]
        assert "no image of this name" in reasons["lost.txt"]
        assert all(file.remedy for file in report.skipped)
        assert [text.split(". ")[0] for text in report.warnings] == [
            "1 archive left out: inner.zip",
            "1 mask left out: 01-masklabel.png",
            "1 unfinished download left out: x.jpg.crdownload",
            "lost.txt: There is no image of this name in the upload or the folder",
            "page.png: This is a web page by content",
            "phone.jxl: This is a JPEG XL file by content",
            "scan.png: This is a Photoshop file by content",
        ]

    @pytest.mark.parametrize("is_archive", [False, True])
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("captions.yaml", b"01.png: ohwx, smiling"),
            ("set.yaml", b"01.png: ohwx, smiling"),
            ("01.md", b"ohwx, smiling"),
            ("01.json", b'{"caption": "ohwx, smiling"}'),
            ("data/train-00000-of-00001.parquet", b"PAR1"),
            ("prompts.xlsx", b"PK\3\4"),
            ("metadata.csv", b"file_name,text\n"),
            ("captions.json", b"{}"),
        ],
    )
    def test_captions_that_are_not_read_are_warned_of(
        self, tmp_path: Path, name: str, data: bytes, is_archive: bool
    ) -> None:
        files = {"01.png": picture(1), "02.png": picture(2), name: data}
        report = upload_archive(tmp_path, zipped(files)) if is_archive else upload(tmp_path, files)
        assert report.added == ("01.png", "02.png")
        (warning,) = report.warnings
        assert name in warning
        assert {file.name for file in report.skipped} == {name}
        assert report.skipped[0].remedy in warning

    def test_a_folder_a_zip_and_single_files_are_the_same_set(self, tmp_path: Path) -> None:
        files = {"00.png": picture(0), "01.jpg": picture(1, "JPEG"), "02.gif": picture(2, "GIF")}
        files |= {"03.tif": picture(3, "TIFF"), "mask_ball.png": picture(4), "00.txt": b"ohwx\x1a"}
        others = (
            "00_depth_map.png",
            "masks/01.png",
            "00.mask",
            "#00.png#",
            "00.png.1",
            "thumbs/00.png",
            "clipspace/x.png",
        )
        files |= {name: picture(10 + place) for place, name in enumerate(others)}
        files |= {"captions.yaml": b"01.jpg: ohwx", "01.md": b"ohwx", "list.txt": b"01.jpg: ohwx", "a.parquet": b"PAR1"}
        for name, data in files.items():
            (tmp_path / "disk" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "disk" / name).write_bytes(data)
        on_disk = inspect_dataset(tmp_path / "disk")
        assert [image.path for image in on_disk.images] == ["00.png", "01.jpg", "02.gif", "03.tif", "mask_ball.png"]
        about_files = {text for text in on_disk.warnings if " left out: " in text}
        assert len(about_files) == 6
        of_zip = upload_archive(tmp_path / "zip", zipped(files))
        of_files = upload(tmp_path / "files", files)
        assert set(of_zip.warnings) == set(of_files.warnings) == about_files
        for way in ("zip", "files"):
            found = inspect_dataset(tmp_path / way)
            assert [(image.path, image.caption) for image in found.images] == [
                (image.path, image.caption) for image in on_disk.images
            ]

    def test_a_raw_file_and_a_scan_come_as_what_they_are(self, tmp_path: Path) -> None:
        raw = b"II*\0\x10\0\0\0CR\2\0" + bytes(20)
        report = upload(tmp_path, {"a.tif": picture(1, "TIFF"), "b.cr2": raw, "c": picture(2, "GIF")})
        assert report.added == ("a.tif", "c.gif")
        (skipped,) = report.skipped
        assert (skipped.name, skipped.reason) == ("b.cr2", "This is a camera RAW file by content.")

    def test_a_caption_file_with_marks_of_its_end_is_taken(self, tmp_path: Path) -> None:
        upload(tmp_path, {"a.png": picture(1), "a.txt": b"ohwx\x1b, smiling\r\n\x1a"})
        assert inspect_dataset(tmp_path).images[0].caption == "ohwx, smiling"

    def test_names_that_cannot_be_stored_are_changed_with_their_captions(self, tmp_path: Path) -> None:
        long = "z" * 250
        report = upload(
            tmp_path / "me",
            {
                "my%20photo.png": picture(1),
                "my%20photo.txt": b"ohwx, one",
                "con.png": picture(2),
                "=?utf-8?B?a8Okc2UucG5n?=": picture(3),
                f"{long}.png": picture(4),
                f"{long}.caption": b"ohwx, four",
                "cat\n.png": picture(5),
                "metadata.jsonl": b'{"file_name": "con.png", "text": "ohwx, two"}\n'
                b'{"file_name": "k\\u00e4se.png", "text": "ohwx, three"}\n'
                b'{"file_name": "cat\\n.png", "text": "ohwx, five"}\n',
            },
        )
        renamed = {file.name: file.stored_as for file in report.renamed}
        assert renamed["my%20photo.png"] == "my photo.png"
        assert renamed["con.png"] == "_con.png"
        assert renamed["cat\ufffd.png"] == "cat_.png"
        assert {image.path: image.caption for image in inspect_dataset(tmp_path / "me").images} == {
            "my photo.png": "ohwx, one",
            "_con.png": "ohwx, two",
            "käse.png": "ohwx, three",
            next(path for path in report.added if path.startswith("zzz") and path.endswith(".png")): "ohwx, four",
            "cat_.png": "ohwx, five",
        }
        again = upload(tmp_path / "me", {"my%20photo.png": picture(1), "con.png": picture(2)})
        assert again.unchanged == ("_con.png", "my photo.png")

    def test_a_long_folder_of_kohya_keeps_its_repeats_and_caption(self, tmp_path: Path) -> None:
        caption = "ohwx woman, " + "very " * 60 + "long"
        upload_archive(tmp_path / "me", zipped({f"10_{caption}/a.png": picture(1), "b.png": picture(2)}))
        image = inspect_dataset(tmp_path / "me").images[0]
        assert (image.repeats, image.caption) == (10, caption)

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-8-sig"])
    def test_captions_in_every_encoding_of_a_folder_are_taken(self, tmp_path: Path, encoding: str) -> None:
        upload(tmp_path / "me", {"a.png": picture(), "a.txt": "ohwx, ein Käse am Tag".encode(encoding)})
        assert inspect_dataset(tmp_path / "me").images[0].caption == "ohwx, ein Käse am Tag"

    @pytest.mark.parametrize(
        ("there", "comes"),
        [
            ("A.png", "a.png"),
            ("café.png", "cafe\u0301.PNG"),
            ("Sub/a.png", "sub/A.png"),
        ],
    )
    def test_a_name_that_differs_in_case_or_form_is_the_same_file(self, tmp_path: Path, there: str, comes: str) -> None:
        folder = tmp_path / "me"
        upload(folder, {there: picture(1)})
        assert upload(folder, {comes: picture(1)}).unchanged == (there,)
        assert f"There is another '{there}' already" in str(errors(folder, {comes: picture(2)}))
        report = upload(folder, {comes: picture(2)}, replace=True)
        assert report.replaced == (there,)
        assert [image.path for image in inspect_dataset(folder).images] == [there]
        stem = comes.rpartition(".")[0]
        upload(folder, {f"{stem}.txt": b"ohwx"})
        assert inspect_dataset(folder).images[0].caption == "ohwx"

    def test_an_upload_of_nothing_usable_is_refused_with_the_reasons(self, tmp_path: Path) -> None:
        found = errors(tmp_path / "me", {"film.jxl": b"\xff\x0a" + bytes(20), "a.npz": b"PK"})
        assert found["files"] == ["There are no images or captions."]
        assert "JPEG XL" in found["files.film.jxl"][0]
        assert "cache" in found["files.a.npz"][0]

    def test_captions_beside_pictures_do_not_count_as_images(self, tmp_path: Path) -> None:
        files = {f"{number}.png": picture(number) for number in range(3)}
        files |= {f"{number}.txt": b"ohwx" for number in range(3)}
        assert len(upload(tmp_path / "me", files, max_files=3).added) == 6

    def test_captions_come_with_their_images(self, tmp_path: Path) -> None:
        upload(tmp_path, {"there.png": picture(1)})
        report = upload(
            tmp_path,
            {"photo.v2": picture(2), "b.jpeg": picture(3, "JPEG")},
            captions={"photo.v2": "ohwx", "b.jpeg": "ohwx, käse", "there.png": "ohwx, sea", "gone.png": " "},
        )
        assert report.added == ("b.jpeg", "b.txt", "photo.v2.png", "photo.v2.txt", "there.txt")
        assert report.caption_count == 3
        assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "ohwx, käse"

    def test_a_suffix_may_lie_but_not_miss(self, tmp_path: Path) -> None:
        report = upload(tmp_path, {"a.jpg": picture(1), "b": picture(2, "JPEG"), "c.v2": picture(3, "WEBP")})
        assert report.added == ("a.jpg", "b.jpg", "c.v2.webp")
        assert inspect_dataset(tmp_path).usable_count == 3

    def test_without_a_commit_nothing_is_left(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "me"
        with Upload(folder) as staged:
            staged.add("a.png", io.BytesIO(picture()))
            assert list(folder.glob(STAGING))
            assert not visible(folder)
        assert not list(tmp_path.iterdir())
        upload(folder, {"a.png": picture()})
        before = contents(folder)
        with contextlib.suppress(KeyboardInterrupt), Upload(folder) as staged:
            staged.add("b.png", io.BytesIO(picture()))
            raise KeyboardInterrupt
        assert contents(folder) == before

    def test_everything_that_is_wrong_is_said_at_once(self, tmp_path: Path) -> None:
        """Damaged pictures are refused, not left out: they may arrive whole at the next try."""
        noise = Image.effect_noise((64, 64), 100)
        noise.save(buffer := io.BytesIO(), "PNG")
        found = errors(
            tmp_path / "me",
            {
                "good.png": picture(),
                "cat.png": buffer.getvalue()[:900],
                "cat.txt": b"its image is bad, which is said there",
                "film.jxl": b"\xff\x0a",
                "empty.png": b"",
                "%2e%2e%2fup.png": picture(),
            },
        )
        assert "The PNG data is truncated" in found.pop("files.cat.png")[0]
        assert {field: texts[0].split(".")[0] for field, texts in found.items()} == {
            "files.empty.png": "The file is empty",
            "files.%2e%2e%2fup.png": "The name holds a percent escape of a separator",
        }

    def test_an_archive_that_is_refused_is_named(self, tmp_path: Path) -> None:
        with Upload(tmp_path / "me") as staged:
            staged.add_archive(io.BytesIO(b"no zip"), name="set.zip")
            staged.add_archive(io.BytesIO(zipped({"bomb.txt": bytes(4 * 2**20)})))
            with pytest.raises(ValidationError) as error:
                staged.commit()
        assert error.value.field_errors.keys() == {"files.set.zip", "files.archive"}
        assert "100 times its size" in error.value.field_errors["files.archive"][0]

    def test_two_files_of_one_name_are_named_both(self, tmp_path: Path) -> None:
        found = errors(tmp_path, {"cat.png": picture(1), "Cat.PNG": picture(2), "cat": picture(3)})
        assert found == {
            "files.Cat.PNG": ["'cat.png' and 'Cat.PNG' would both be stored as 'cat.png'. Rename one of them."],
            "files.cat": ["'cat.png' and 'cat' would both be stored as 'cat.png'. Rename one of them."],
        }
        found = errors(tmp_path, {"a.png": picture(), "a.txt": b"one"}, captions={"a.png": "two"})
        assert found.keys() == {"captions.a.png"}

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_an_archive_that_holds_a_name_twice_is_refused(self, tmp_path: Path) -> None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("a.png", picture(1))
            packed.writestr("a.png", picture(2))
        with Upload(tmp_path / "me") as staged:
            staged.add_archive(archive)
            with pytest.raises(ValidationError, match=r"'a\.png' and 'a\.png' would both be stored as 'a\.png'"):
                staged.commit()

    def test_an_upload_of_nothing_is_an_error(self, tmp_path: Path) -> None:
        assert errors(tmp_path, {}) == {"files": ["There are no images or captions."]}

    def test_the_same_bytes_are_unchanged_and_others_need_leave(self, tmp_path: Path) -> None:
        upload(tmp_path, {"a.png": picture(1), "b.png": picture(2)})
        (tmp_path / "c.png").write_bytes(picture(3))
        files = {"a.png": picture(1), "b.png": picture(9), "c.png": picture(3), "d.png": picture(4)}
        found = errors(tmp_path, files)
        assert found == {"files.b.png": ["There is another 'b.png' already. Rename it, or replace it."]}
        report = upload(tmp_path, files, replace=True)
        assert (report.added, report.replaced, report.unchanged) == (("d.png",), ("b.png",), ("a.png", "c.png"))
        assert visible(tmp_path) == files
        assert manifest(tmp_path).keys() == {"a.png", "b.png", "d.png"}

    def test_no_link_and_no_folder_is_written_to(self, tmp_path: Path) -> None:
        folder, secret = tmp_path / "me", tmp_path / "secret.png"
        (folder / "d.png").mkdir(parents=True)
        secret.write_bytes(picture(1))
        (folder / "a.png").symlink_to(secret)
        (folder / "b.png").symlink_to(tmp_path / "nothing.png")
        (folder / "c.png").symlink_to(folder / "d.png")
        files = {f"{letter}.png": picture(1) for letter in "abcd"}
        found = errors(folder, files, replace=True)
        assert found == {
            f"files.{name}": [f"'{name}' is a link or a folder there. Remove it, or rename the file."] for name in files
        }
        assert secret.read_bytes() == picture(1)
        assert not (tmp_path / "nothing.png").exists()

    def test_a_file_of_several_names_is_replaced_under_one(self, tmp_path: Path) -> None:
        (tmp_path / "outside.png").write_bytes(picture(1))
        folder = tmp_path / "me"
        folder.mkdir()
        os.link(tmp_path / "outside.png", folder / "a.png")
        upload(folder, {"a.png": picture(2)}, replace=True)
        assert (tmp_path / "outside.png").read_bytes() == picture(1)

    def test_a_caption_needs_an_image_and_text(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "deep.png").write_bytes(picture())
        (tmp_path / "notes.md").write_bytes(b"no image")
        files = {"a.png": picture(), "lost.txt": b"ohwx", "deep.txt": b"ohwx", "notes.txt": b"ohwx"}
        report = upload(tmp_path, {**files, "A.txt": b"another case"})
        assert report.added == ("a.png", "a.txt")
        assert {file.name for file in report.skipped} == {"lost.txt", "deep.txt", "notes.txt"}
        found = errors(
            tmp_path,
            {"c.png": picture(), "c.txt": bytes(range(1, 32)), "d.png": picture(), "d.txt": b"x" * 2**17},
            captions={"gone.png": "ohwx", "c.png": "\ud800"},
        )
        assert found == {
            "captions.gone.png": ["There is no image 'gone.png' that this could be the caption of."],
            "captions.c.png": ["The caption is not UTF-8. Save it as UTF-8."],
            "files.c.txt": ["The caption is no text. Save it as plain text."],
            "files.d.txt": ["The file is larger than 65,536 bytes."],
        }

    def test_a_table_must_parse(self, tmp_path: Path) -> None:
        found = errors(tmp_path, {"metadata.jsonl": b'{"file_name": "a.png"}', "captions.json": b"["})
        assert found["files.metadata.jsonl"] == ['line 1 has neither "text" nor "caption". Repair or remove the file.']
        assert "not JSON" in found["files.captions.json"][0]
        found = errors(tmp_path, {"captions.json": b"{}" + b" " * 100}, max_table_bytes=100)
        assert found == {"files.captions.json": ["The file is larger than 100 bytes."]}

    def test_limits(self, tmp_path: Path) -> None:
        three = {f"{index}.png": picture(index) for index in range(3)}
        size = len(picture(0))
        assert errors(tmp_path, three, max_files=2) == {
            "files": ["There are more than 2 images. Send fewer at a time."]
        }
        assert errors(tmp_path, three, max_total_bytes=size) == {
            "files": [f"The files are larger than {size:,} bytes together."]
        }
        assert len(errors(tmp_path, three, max_file_bytes=size - 1)) == 3
        assert "more than 575 pixels" in errors(tmp_path, three, max_pixels=24 * 24 - 1)["files.0.png"][0]
        assert "longer than 3 char" in str(errors(tmp_path, three, max_caption_length=3, captions={"0.png": "ohwx"}))
        (tmp_path / "here.png").write_bytes(picture())
        assert errors(tmp_path, three, max_folder_files=3) == {
            "files": ["The folder would hold more than 3 files; 1 are there."]
        }
        assert len(upload(tmp_path, three, max_files=3, max_folder_files=4, max_total_bytes=4 * size).added) == 3

    def test_an_archive_stops_at_the_limits_too(self, tmp_path: Path) -> None:
        archive = zipped({f"{index}.png": picture(index) for index in range(3)})
        with Upload(tmp_path, limits=UploadLimits(max_files=2)) as staged:
            staged.add_archive(io.BytesIO(archive))
            with pytest.raises(ValidationError, match="more than 2 images"):
                staged.commit()

    def test_a_bomb_of_pixels_is_refused_from_its_header(self, tmp_path: Path) -> None:
        found = errors(tmp_path, {"a.png": png((60_000, 60_000), color_type=RGB, rows=[])})
        assert "more than 67,108,864 pixels" in found["files.a.png"][0]

    @pytest.mark.slow
    @given(name=st.one_of(AWKWARD, st.text(max_size=100)))
    @settings(max_examples=40, deadline=None)
    def test_no_name_makes_a_hidden_file_or_one_elsewhere(self, name: str) -> None:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root, "data", "me")
            try:
                report = upload(folder, {name: picture()})
            except ValidationError:
                assert not any(Path(root).iterdir())
                return
            assert list(Path(root).iterdir()) == [folder.parent]
            assert list(folder.parent.iterdir()) == [folder]
            assert set(contents(folder)) == {*report.added, MANIFEST}
            assert not any(part.startswith(".") for name in report.added for part in name.split("/"))
            assert inspect_dataset(folder).usable_count == 1


FILES = {"a.png": picture(11), "b.png": picture(12), "b.txt": b"new", "c.png": picture(13)}


def _upload(folder: Path, armed: Callable[[], None]) -> None:
    with Upload(folder) as staged:
        for name, data in FILES.items():
            staged.add(name, io.BytesIO(data))
        armed()
        staged.commit(replace=True)


def _clear(folder: Path, armed: Callable[[], None]) -> None:
    armed()
    clear(folder)


def clear(folder: Path) -> None:
    with locked(folder):
        clear_leftovers(folder)
        remove_traces(folder)


def _remove(folder: Path, armed: Callable[[], None]) -> None:
    armed()
    remove_uploaded(folder)


def _kill_everywhere(folder: Path, action: Callable[[Path, Callable[[], None]], None]) -> None:
    """Take a copy of the folder for each call to the file system that the action makes, and die before that call."""
    for kill_at in range(1, 200):
        copy = folder.with_name(f"{action.__name__}{kill_at:03}")
        shutil.copytree(folder, copy)
        process = os.fork()
        if not process:
            action(copy, lambda kill_at=kill_at: _die_at(kill_at))  # type: ignore[misc]
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            return


def _die_at(kill_at: int) -> None:
    calls = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event == "open" and arguments[2] & os.O_DIRECTORY:  # which changes nothing
            return
        if event in {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "fcntl.flock", "open"}:
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


class TestKill:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        upload(tmp_path / "me", {"b.png": picture(2), "b.txt": b"old", "z.png": picture(3)})
        return tmp_path / "me"

    def killed(self, folder: Path, action: Callable[[Path, Callable[[], None]], None]) -> list[Path]:
        """Copies of the folder in which the action was killed, one call later in each; in the last it was not."""
        process = processes.Process(target=_kill_everywhere, args=(folder, action))
        process.start()
        process.join()
        assert process.exitcode == 0
        return sorted(folder.parent.glob(f"{action.__name__}*"))

    def test_the_same_upload_completes_a_commit_that_was_killed_anywhere(self, folder: Path) -> None:
        before = visible(folder)
        after = before | FILES
        counts = []
        for copy in self.killed(folder, _upload):
            partly = visible(copy)
            assert all(data in (before.get(name), FILES.get(name)) for name, data in partly.items())
            placed = sorted(name for name, data in partly.items() if FILES.get(name) == data)
            assert placed == sorted(FILES)[: len(placed)]
            counts.append(len(placed))
            report = upload(copy, FILES, replace=True)
            assert list(report.unchanged) == placed
            assert visible(copy) == after
            assert manifest(copy).keys() == after.keys()
            assert all(sha256(data) in manifest(copy)[name].split() for name, data in after.items())
            assert not list(copy.glob(STAGING))
        assert counts == sorted(counts)
        assert set(counts) == set(range(len(FILES) + 1))
        assert counts.count(0) > 5

    def test_a_removal_after_a_killed_commit_leaves_nothing_of_it(self, folder: Path) -> None:
        for copy in self.killed(folder, _upload):
            remove_uploaded(copy)
            assert not copy.exists()

    def test_another_upload_removes_what_a_killed_one_left(self, folder: Path) -> None:
        half = next(copy for copy in self.killed(folder, _upload) if (copy / "a.png").exists())
        assert list(half.glob(STAGING))
        upload(half, {"later.png": picture(99)})
        assert not list(half.glob(STAGING))
        assert set(visible(half)) == {"a.png", "b.png", "b.txt", "z.png", "later.png"}

    def journaled(self, folder: Path) -> Path:
        """A commit of an earlier version that was killed when its journal was written."""
        staging = folder / ".influencerai-upload-0123456789abcdef"
        names = {**FILES, MANIFEST: json.dumps({name: sha256(data) for name, data in FILES.items()}).encode()}
        for name, data in names.items():
            (staging / "files").mkdir(parents=True, exist_ok=True)
            (staging / "files" / name).write_bytes(data)
        (staging / "owner").touch()
        (staging / "old").mkdir()
        (staging / "incoming").mkdir()
        (staging / "journal.json").write_text(json.dumps({"place": sorted(names), "remove": ["z.png"]}))
        return folder

    def test_a_journal_of_an_earlier_version_is_completed_wherever_that_is_killed(self, folder: Path) -> None:
        copies = self.killed(self.journaled(folder), _clear)
        assert len(copies) > 10
        for copy in copies:
            clear(copy)
            assert visible(copy) == FILES
            assert manifest(copy) == {name: sha256(data) for name, data in FILES.items()}
            assert not list(copy.glob(STAGING))

    @pytest.mark.parametrize("journal", ["", "[]", "{}", '{"place": 1, "remove": []}'])
    def test_a_journal_that_cannot_be_read_is_removed(self, folder: Path, journal: str) -> None:
        before = visible(folder)
        (self.journaled(folder) / ".influencerai-upload-0123456789abcdef" / "journal.json").write_text(journal)
        clear(folder)
        assert visible(folder) == before
        assert not list(folder.glob(STAGING))

    @pytest.mark.slow
    def test_a_removal_that_was_killed_anywhere_goes_on(self, folder: Path) -> None:
        copies = self.killed(folder, _remove)
        assert len(copies) > 5
        for copy in copies:
            remove_uploaded(copy)
            assert not copy.exists() or not contents(copy)


def _hold(folder: Path, connection: Connection) -> None:
    with Upload(folder) as staged:
        staged.add("a.png", io.BytesIO(picture()))
        connection.send("staged")
        connection.recv()
        staged.commit()


def _race(folders: Sequence[Path], barrier: Barrier, shade: int, replace: bool, results: Any) -> None:
    for folder in folders:
        with Upload(folder) as staged:
            for index in range(5):
                staged.add(f"{index}.png", io.BytesIO(picture(shade + index)))
            barrier.wait()
            try:
                staged.commit(replace=replace)
                results.put((folder, shade, "committed"))
            except ValidationError as error:
                results.put((folder, shade, str(error)))


class TestOthers:
    @pytest.mark.slow
    def test_an_upload_that_goes_on_is_left_alone_and_a_killed_one_is_cleared_up(self, tmp_path: Path) -> None:
        folder = tmp_path / "me"
        ours, theirs = processes.Pipe()
        process = processes.Process(target=_hold, args=(folder, theirs))
        process.start()
        assert ours.recv() == "staged"
        clear(folder)
        assert remove_uploaded(folder) == ()
        assert len(list(folder.glob(STAGING))) == 1
        upload(folder, {"b.png": picture(1)})
        assert len(list(folder.glob(STAGING))) == 1
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        clear(folder)
        assert set(contents(folder)) == {"b.png", MANIFEST}

    def test_an_upload_survives_the_removal_of_what_was_there(self, tmp_path: Path) -> None:
        folder = tmp_path / "me"
        upload(folder, {"b.png": picture(1)})
        ours, theirs = processes.Pipe()
        process = processes.Process(target=_hold, args=(folder, theirs))
        process.start()
        assert ours.recv() == "staged"
        assert remove_uploaded(folder) == ("b.png",)
        ours.send("commit")
        process.join()
        assert process.exitcode == 0
        assert set(contents(folder)) == {"a.png", MANIFEST}

    def test_who_waited_for_a_lock_that_was_removed_locks_anew(self, tmp_path: Path) -> None:
        lock = tmp_path / ".influencerai-uploads.lock"
        entered, leave = threading.Event(), threading.Event()

        def wait() -> None:
            with locked(tmp_path):
                entered.set()
                leave.wait(10)

        waiting = threading.Thread(target=wait)
        with locked(tmp_path):
            waiting.start()
            assert not entered.wait(0.3)
            remove_traces(tmp_path)
            assert not lock.exists()
        assert entered.wait(10)
        is_there = lock.exists()
        leave.set()
        waiting.join()
        assert is_there

    @pytest.mark.slow
    @pytest.mark.parametrize("replace", [False, True])
    def test_of_two_uploads_at_once_each_is_whole(self, tmp_path: Path, replace: bool) -> None:
        folders = [tmp_path / f"me{attempt}" for attempt in range(5)]
        barrier, results = processes.Barrier(2), processes.SimpleQueue()
        started = [
            processes.Process(target=_race, args=(folders, barrier, shade, replace, results)) for shade in (10, 50)
        ]
        for process in started:
            process.start()
        found: dict[Path, dict[int, str]] = {folder: {} for folder in folders}
        for _ in range(2 * len(folders)):
            folder, shade, text = results.get()
            found[folder][shade] = text
        for process in started:
            process.join()
        for folder, texts in found.items():
            committed = [shade for shade, text in texts.items() if text == "committed"]
            assert len(committed) == (2 if replace else 1)
            whole = [{f"{index}.png": picture(shade + index) for index in range(5)} for shade in committed]
            assert visible(folder) in whole
            assert manifest(folder) == {name: sha256(data) for name, data in visible(folder).items()}
            refused = [text for text in texts.values() if text != "committed"]
            assert all("There is another '4.png' already" in text for text in refused)


def _outgrow(folder: Path, size: int, connection: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        upload(folder, {"a.png": picture(), "b.png": picture(1, size=(64, 64)) + bytes(2 * size)})
    except InfluencerAIError as error:
        connection.send(str(error))


class TestRefusals:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("only root can mount a small disk")
        try:
            yield disk
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_full_disk_changes_nothing(self, small_disk: Path) -> None:
        folder = small_disk / "me"
        upload(folder, {"a.png": picture()})
        before = contents(folder)
        with pytest.raises(InfluencerAIError, match=r"'me' cannot be written: No space left on device\. Free space"):
            upload(folder, {"b.png": picture(1), "c.png": picture(2) + bytes(2**18)})
        assert contents(folder) == before
        filler = small_disk / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(2**18))
        with pytest.raises(InfluencerAIError, match="No space left"):
            write_caption(folder, "a.png", "ohwx")
        assert contents(folder) == before

    def test_a_disk_that_fills_up_at_any_point_of_the_commit_changes_nothing(self, small_disk: Path) -> None:
        folder = small_disk / "me"
        upload(folder, {"a.png": picture()})
        before = contents(folder)
        failed = 0
        for spare in range(0, 2**17, 4096):
            filler = small_disk / "filler"
            with contextlib.suppress(OSError):
                filler.write_bytes(bytes(2**18))
            os.truncate(filler, filler.stat().st_size - min(spare, filler.stat().st_size))
            try:
                upload(folder, {"a.png": picture(7), "b.png": picture(1)}, replace=True)
            except InfluencerAIError:
                assert contents(folder) == before
                failed += 1
                filler.unlink()
            else:
                break
        assert failed > 2
        assert visible(folder) == {"a.png": picture(7), "b.png": picture(1)}

    @pytest.mark.slow
    def test_a_file_that_the_system_cuts_short_changes_nothing(self, tmp_path: Path) -> None:
        folder = tmp_path / "me"
        ours, theirs = processes.Pipe()
        process = processes.Process(target=_outgrow, args=(folder, 2**16, theirs))
        process.start()
        assert "'me' cannot be written: File too large. Free space on its disk" in ours.recv()
        process.join()
        assert not folder.exists()

    def test_whoever_catches_the_refusal_cannot_commit_the_rest(self, small_disk: Path) -> None:
        with Upload(small_disk / "me") as staged:
            staged.add("a.png", io.BytesIO(picture()))
            with pytest.raises(InfluencerAIError):
                staged.add("b.png", io.BytesIO(picture() + bytes(2**19)))
            with pytest.raises(ValidationError, match="No space left"):
                staged.commit()

    def test_a_folder_that_may_not_be_written_is_a_named_error(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "me"
            folder.mkdir()
            for path in (Path(name), folder):
                path.chmod(0o555)
            with ordinary_user(), pytest.raises(InfluencerAIError, match="'me' cannot be written: Permission denied"):
                upload(folder, {"a.png": picture()})
            assert not contents(folder)
            Path(name).chmod(0o755)
            folder.chmod(0o755)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
    def test_a_file_that_cannot_be_replaced_ends_the_commit_and_the_same_upload_goes_on(self) -> None:
        """In a sticky folder only the owner of a file may replace it."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "c.png").write_bytes(picture(3))
            (folder / "b.png").write_bytes(picture(2))
            os.chown(folder / "b.png", NOBODY, NOBODY)
            folder.chmod(0o1777)
            with ordinary_user(), pytest.raises(InfluencerAIError, match="Operation not permitted"):
                upload(folder, FILES, replace=True)
            assert visible(folder) == {**FILES, "c.png": picture(3)}
            assert not list(folder.glob(STAGING))
            os.chown(folder / "c.png", NOBODY, NOBODY)
            with ordinary_user():
                report = upload(folder, FILES, replace=True)
            assert (report.replaced, report.unchanged) == (("c.png",), ("a.png", "b.png", "b.txt"))
            assert visible(folder) == FILES

    def test_a_file_in_the_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "me").write_bytes(b"")
        with pytest.raises(InfluencerAIError, match="'me' cannot be written"):
            upload(tmp_path / "me", {"a.png": picture()})
        assert (tmp_path / "me").read_bytes() == b""

    def test_a_planted_journal_or_manifest_reaches_nothing_outside(self, tmp_path: Path) -> None:
        folder = tmp_path / "me"
        upload(folder, {"a.png": picture()})
        (tmp_path / "victim.png").write_bytes(picture(1))
        (folder / "out").symlink_to(tmp_path)
        for name in ("../victim.png", "out/victim.png", str(tmp_path / "victim.png")):
            (folder / MANIFEST).write_text(json.dumps({name: sha256(picture(1))}))
            with pytest.raises(InfluencerAIError, match="does not lie in the dataset folder 'me'"):
                remove_uploaded(folder)
            staging = folder / ".influencerai-upload-planted"
            (staging / "files").mkdir(parents=True)
            (folder / "victim.png").write_bytes(b"planted")
            for place, remove in (([name], []), ([], [name])):
                (staging / "journal.json").write_text(json.dumps({"place": place, "remove": remove}))
                with pytest.raises(InfluencerAIError, match="does not lie"):
                    clear(folder)
            shutil.rmtree(staging)
        assert (tmp_path / "victim.png").read_bytes() == picture(1)

    def test_a_manifest_that_is_none_is_a_named_error(self, tmp_path: Path) -> None:
        (tmp_path / MANIFEST).write_bytes(b"[1]")
        with pytest.raises(InfluencerAIError, match="list of uploaded files"):
            remove_uploaded(tmp_path)
        with pytest.raises(InfluencerAIError, match="Restore it, or remove it"):
            upload(tmp_path, {"a.png": picture()})
        assert set(contents(tmp_path)) == {MANIFEST}


class TestWriteCaption:
    def test_it_is_written_beside_the_image_changed_and_removed(self, tmp_path: Path) -> None:
        upload(tmp_path, {"a.png": picture()})
        (tmp_path / "10_ohwx").mkdir()
        (tmp_path / "10_ohwx" / "b.jpg").write_bytes(picture(1, "JPEG"))
        write_caption(tmp_path, "a.png", "ohwx, first")
        write_caption(tmp_path, "a.png", "ohwx, rosé")
        write_caption(tmp_path, "10_ohwx/b.jpg", "ohwx, deep")
        captions = {image.path: image.caption for image in inspect_dataset(tmp_path).images}
        assert captions == {"a.png": "ohwx, rosé", "10_ohwx/b.jpg": "ohwx, deep"}
        assert manifest(tmp_path).keys() == {"a.png", "a.txt", "10_ohwx/b.txt"}
        write_caption(tmp_path, "a.png", " \n")
        write_caption(tmp_path, "a.png", "")
        assert not (tmp_path / "a.txt").exists()
        assert manifest(tmp_path).keys() == {"a.png", "10_ohwx/b.txt"}
        assert not list(tmp_path.glob(STAGING))
        assert remove_uploaded(tmp_path) == ("10_ohwx/b.txt", "a.png")
        assert set(contents(tmp_path)) == {"10_ohwx/b.jpg"}

    def test_a_caption_by_hand_that_says_the_same_stays_by_hand(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(picture())
        (tmp_path / "a.txt").write_text("ohwx")
        write_caption(tmp_path, "a.png", "ohwx")
        assert set(contents(tmp_path)) == {"a.png", "a.txt"}

    @pytest.mark.parametrize(
        "image",
        [
            "",
            "b.png",
            "../me/a.png",
            "/etc/passwd",
            "out/x.png",
            "away.png",
            ".hidden.png",
            "notes.md",
            "sub",
            "./a.png",
        ],
    )
    def test_an_image_that_is_not_there_is_unknown(self, tmp_path: Path, image: str) -> None:
        folder = tmp_path / "me"
        (folder / "sub").mkdir(parents=True)
        (folder / "a.png").write_bytes(picture())
        (folder / ".hidden.png").write_bytes(picture())
        (folder / "notes.md").write_bytes(b"no image")
        (tmp_path / "x.png").write_bytes(picture())
        (folder / "out").symlink_to(tmp_path)
        (folder / "away.png").symlink_to(tmp_path / "x.png")
        before = contents(tmp_path)
        with pytest.raises(NotFoundError, match=r"Image .* not found"):
            write_caption(folder, image, "ohwx")
        assert contents(tmp_path) == before

    def test_a_folder_that_is_not_there_has_no_images(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            write_caption(tmp_path / "me", "a.png", "ohwx")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("text", ["a\0b", "\x1b[31m", "\ud800", "x" * 4097])
    def test_a_text_that_is_no_caption_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.png").write_bytes(picture())
        with pytest.raises(ValidationError) as error:
            write_caption(tmp_path, "a.png", text)
        assert error.value.field_errors.keys() == {"text"}
        assert set(contents(tmp_path)) == {"a.png"}

    @pytest.mark.parametrize("text", ["ohwx", ""])
    def test_a_link_or_folder_in_the_captions_place_is_refused(self, tmp_path: Path, text: str) -> None:
        folder = tmp_path / "me"
        folder.mkdir()
        (tmp_path / "secret").write_bytes(b"secret")
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(picture())
        (folder / "a.txt").symlink_to(tmp_path / "secret")
        (folder / "b.txt").mkdir()
        for name in ("a.png", "b.png"):
            with pytest.raises(ValidationError, match="is a link or a folder there"):
                write_caption(folder, name, text)
        assert (tmp_path / "secret").read_bytes() == b"secret"
        assert (folder / "a.txt").is_symlink()


class TestRemoveUploaded:
    def test_only_what_came_through_the_server_goes(self, tmp_path: Path) -> None:
        folder = tmp_path / "me"
        upload(folder, {f"{letter}.png": picture(ord(letter)) for letter in "abcd"})
        (folder / "a.png").write_bytes(picture(9))
        (folder / "b.png").unlink()
        (folder / "c.png").rename(folder / "hand.png")
        (folder / "c.png").symlink_to(folder / "hand.png")
        assert remove_uploaded(folder) == ("d.png",)
        assert {path.name for path in folder.iterdir()} == {"a.png", "c.png", "hand.png"}
        assert remove_uploaded(folder) == ()

    def test_an_empty_folder_goes_too_but_not_its_parent(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "me"
        upload(folder, {"a.png": picture()}, captions={"a.png": "ohwx"})
        assert remove_uploaded(folder) == ("a.png", "a.txt")
        assert list((tmp_path / "data").iterdir()) == []
        assert remove_uploaded(folder) == ()

    def test_a_folder_without_uploads_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(picture())
        (tmp_path / "empty").mkdir()
        assert remove_uploaded(tmp_path) == ()
        assert remove_uploaded(tmp_path / "empty") == ()
        assert {path.name for path in tmp_path.iterdir()} == {"a.png", "empty"}


def test_a_report_of_errors_names_fields_and_never_where_the_folder_lies(tmp_path: Path) -> None:
    found = errors(tmp_path / "me", {"a.png": b"", "a\\b.png": b""})
    assert found.keys() == {"files.a.png", "files.a\\b.png"}
    assert str(tmp_path) not in str(found)
