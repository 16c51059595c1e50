"""Decoding: pictures are decoded once, within a budget of pixels, and no longer than somebody waits."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from influencerai.dataset import inspect_dataset
from influencerai.dataset.decoding import Decoding, KnownPictures, PixelBudget
from influencerai.dataset.image_file import MAX_PIXELS, pixel_count
from influencerai.errors import DatasetError
from tests.png_files import RGB, png

LARGE = 5 * 2**20


def picture(shade: int = 0, *, size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def waits(budget: PixelBudget, pixels: int) -> bool:
    """Whether there is no room now."""
    entered = threading.Event()

    def hold() -> None:
        with budget.hold(pixels):
            entered.set()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    return not entered.wait(0.2)


def test_the_budget_is_shared_by_threads_and_given_back() -> None:
    budget = PixelBudget(2 * LARGE)
    with budget.hold(LARGE), budget.hold(LARGE):
        assert waits(budget, LARGE)
        assert not waits(budget, 2**20), "a small picture needs no room"
    assert not waits(budget, LARGE)


def test_a_picture_beyond_the_budget_goes_alone() -> None:
    budget = PixelBudget(LARGE)
    assert not waits(budget, 10 * LARGE)
    with budget.hold(LARGE):
        assert waits(budget, 10 * LARGE)


def test_a_known_picture_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "b.png").write_bytes(picture(2)[:50])
    decoded: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> object:
        decoded.append(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    known = KnownPictures()
    first = inspect_dataset(tmp_path, decoding=Decoding(known=known))
    assert decoded
    decoded.clear()
    assert inspect_dataset(tmp_path, decoding=Decoding(known=known)) == first
    assert not decoded
    assert [bool(image.errors) for image in first.images] == [False, True]


def test_the_oldest_pictures_are_forgotten() -> None:
    known = KnownPictures(most=2)
    decoding = Decoding(known=known)
    digests = []
    for shade in range(3):
        data = picture(shade)
        digests.append(hashlib.sha256(data).hexdigest())
        decoding.facts(data, sha256=digests[-1], max_pixels=MAX_PIXELS)
        known.get(digests[0], max_pixels=MAX_PIXELS)
    assert [known.get(digest, max_pixels=MAX_PIXELS) is None for digest in digests] == [False, True, False]


def test_a_cap_on_pixels_is_part_of_what_is_known() -> None:
    decoding, data = Decoding(known=KnownPictures()), picture(size=(24, 16))
    with pytest.raises(DatasetError, match="more than 383 pixels"):
        decoding.facts(data, sha256="a", max_pixels=24 * 16 - 1)
    assert decoding.facts(data, sha256="a", max_pixels=24 * 16).width == 24


def test_an_inspection_ends_between_two_pictures(tmp_path: Path) -> None:
    for shade in range(3):
        (tmp_path / f"{shade}.png").write_bytes(picture(shade))
    checks = iter([None, None, None, InterruptedError()])

    def check() -> None:
        if error := next(checks):
            raise error

    with pytest.raises(InterruptedError):
        inspect_dataset(tmp_path, decoding=Decoding(check=check))


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (picture(size=(24, 16)), 384),
        (png((60_000, 60_000), color_type=RGB, rows=[]), 0),
        (b"", 0),
        (b"\x89PNG\r\n\x1a\n", 0),
    ],
)
def test_pixels_are_counted_from_the_header(data: bytes, count: int) -> None:
    assert pixel_count(data) == count
