"""Thumbnails: small, upright, in sRGB, the same bytes each time, and nothing of the camera's data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms

from influencerai.dataset.thumbnail import thumbnail
from influencerai.errors import DatasetError
from tests.png_files import GRAY, RGB, png, png_16bit

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def saved(path: Path, image: Image.Image, format_: str = "PNG", **options: Any) -> Path:
    image.save(path, format_, **options)
    return path


def drawn(path: Path, **options: Any) -> Image.Image:
    image = Image.open(io.BytesIO(thumbnail(path, inside=path.parent, **options)))
    assert image.format == "WEBP"
    return image


def near(image: Image.Image, colour: tuple[int, int, int], *, at: tuple[int, int]) -> bool:
    pixel = image.convert("RGB").getpixel(at)
    assert isinstance(pixel, tuple)
    return all(abs(one - other) <= 24 for one, other in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_longer_side_is_what_was_asked_for(tmp_path: Path, format_: str) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (1000, 500), RED), format_)
    assert drawn(path).size == (256, 128)
    assert drawn(path, side=100).size == (100, 50)
    assert near(drawn(path), RED, at=(128, 64))


def test_nothing_is_enlarged_and_a_line_keeps_a_pixel(tmp_path: Path) -> None:
    assert drawn(saved(tmp_path / "a.png", Image.new("RGB", (40, 20)))).size == (40, 20)
    assert drawn(saved(tmp_path / "b.png", Image.new("RGB", (4000, 1)))).size == (256, 1)


def test_it_stands_upright_without_the_cameras_data(tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 300), RED)
    image.paste(BLUE, (300, 0, 600, 300))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Secret Camera"
    path = saved(tmp_path / "a.jpg", image, "JPEG", exif=exif.tobytes(), comment=b"Secret place")
    found = drawn(path)
    assert found.size == (128, 256)
    assert near(found, RED, at=(64, 30))
    assert near(found, BLUE, at=(64, 220))
    data = thumbnail(path, inside=tmp_path)
    assert b"Secret" not in data
    assert not found.getexif()


def test_a_profile_is_applied_and_left_out(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = drawn(saved(tmp_path / "a.png", Image.new("RGB", (8, 8), RED), icc_profile=profile))
    assert near(found, RED, at=(4, 4))
    assert "icc_profile" not in found.info


def test_transparency_is_white_and_16_bit_is_scaled(tmp_path: Path) -> None:
    assert near(drawn(saved(tmp_path / "a.png", Image.new("RGBA", (8, 8), (0, 0, 0, 0)))), WHITE, at=(4, 4))
    (tmp_path / "b.png").write_bytes(png_16bit([(0x8000,)] * 8, color_type=GRAY))
    assert near(drawn(tmp_path / "b.png"), (128, 128, 128), at=(4, 0))


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.effect_noise((700, 500), 80).convert("RGB"), "JPEG")
    first = thumbnail(path, inside=tmp_path)
    assert first == thumbnail(path, inside=tmp_path)
    assert len(first) < len(path.read_bytes())


def test_what_cannot_be_drawn_is_an_error_that_names_the_file_but_not_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "bomb.png").write_bytes(png((60_000, 60_000), color_type=RGB, rows=[]))
    for name, reason in (("a.png", "a text file by content"), ("bomb.png", "pixels"), ("gone.png", "cannot be read")):
        with pytest.raises(DatasetError, match=rf"^{name}: .*{reason}") as error:
            thumbnail(tmp_path / name, inside=tmp_path)
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(DatasetError, match=r"more than 99 pixels"):
        thumbnail(saved(tmp_path / "b.png", Image.new("RGB", (10, 10))), inside=tmp_path, max_pixels=99)


def test_a_link_that_leaves_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = saved(tmp_path / "secret.png", Image.new("RGB", (8, 8)))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").symlink_to(secret)
    with pytest.raises(DatasetError, match=r"a\.png: The file is a link that leaves the folder"):
        thumbnail(folder / "a.png", inside=folder)
    (folder / "b.png").write_bytes(secret.read_bytes())
    (folder / "c.png").symlink_to(folder / "b.png")
    assert thumbnail(folder / "c.png", inside=folder)
