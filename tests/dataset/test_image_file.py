"""One image file: every kind that users have becomes upright 8-bit sRGB, and every bad one a named error."""

from __future__ import annotations

import io
import os
import random
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from pillow_heif import register_heif_opener

from influencerai.dataset import MAX_PIXELS, load_rgb
from influencerai.dataset.picture_facts import picture_facts
from influencerai.errors import DatasetError
from tests.png_files import GRAY, GRAY_ALPHA, RGB, png, png_16bit

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def load(data: bytes) -> Image.Image:
    image = load_rgb(io.BytesIO(data), name="image")
    assert image.mode == "RGB"
    return image


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    data = image.tobytes()
    return [tuple(data[start : start + 3]) for start in range(0, len(data), 3)]


def near(image: Image.Image, colour: tuple[int, int, int], *, at: tuple[int, int] = (0, 0), within: int = 8) -> bool:
    pixel = image.getpixel(at)
    assert isinstance(pixel, tuple)
    return all(abs(one - other) <= within for one, other in zip(pixel, colour, strict=True))


def two_halves() -> Image.Image:
    """32 x 16: the left half red, the right half blue."""
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))
    return image


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_common_formats_are_read_whatever_the_name_says(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "picture.gif"
    path.write_bytes(encoded(two_halves(), format_))
    image = load_rgb(path)
    assert image.size == (32, 16)
    assert near(image, RED, at=(4, 8))
    assert near(image, BLUE, at=(28, 8))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "size", "red", "blue"),
    [
        (1, (32, 16), (2, 8), (30, 8)),
        (2, (32, 16), (30, 8), (2, 8)),
        (3, (32, 16), (30, 8), (2, 8)),
        (4, (32, 16), (2, 8), (30, 8)),
        (5, (16, 32), (8, 2), (8, 30)),
        (6, (16, 32), (8, 2), (8, 30)),
        (7, (16, 32), (8, 30), (8, 2)),
        (8, (16, 32), (8, 30), (8, 2)),
        (9, (32, 16), (2, 8), (30, 8)),
    ],
)
def test_exif_orientation_is_applied(
    format_: str, orientation: int, size: tuple[int, int], red: tuple[int, int], blue: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load(encoded(two_halves(), format_, exif=exif.tobytes()))
    assert image.size == size
    assert near(image, RED, at=red)
    assert near(image, BLUE, at=blue)


def test_broken_exif_does_not_make_an_image_unusable() -> None:
    data = encoded(two_halves(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert load(data).size == (32, 16)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(format_: str) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 51)])
    assert pixels(load(encoded(image, format_, lossless=True))) == [RED, WHITE, (204, 204, 204)]


def test_gray_with_alpha_is_laid_on_white() -> None:
    assert pixels(load(encoded(Image.new("LA", (1, 1), (0, 51)), "PNG"))) == [(204, 204, 204)]


def test_a_palette_keeps_its_colours_and_its_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *BLUE, 0, 255, 0])
    image.putdata([0, 1, 2])
    assert pixels(load(encoded(image, "PNG"))) == [RED, BLUE, (0, 255, 0)]
    assert pixels(load(encoded(image, "PNG", transparency=1))) == [RED, WHITE, (0, 255, 0)]
    assert pixels(load(encoded(image, "PNG", transparency=b"\xff\xff\x00"))) == [RED, BLUE, WHITE]


def test_a_transparent_colour_of_an_rgb_png_is_laid_on_white() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    assert pixels(load(encoded(image, "PNG", transparency=BLUE))) == [RED, WHITE]


def test_black_and_white_becomes_rgb() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(load(encoded(image, "PNG"))) == [(0, 0, 0), WHITE]


def test_16_bit_gray_is_scaled_not_clipped() -> None:
    data = png_16bit([(0,), (0x00FF,), (0x8000,), (0xFFFF,)], color_type=GRAY)
    assert pixels(load(data)) == [(value,) * 3 for value in (0, 0, 128, 255)]


def test_16_bit_rgb_is_scaled() -> None:
    data = png_16bit([(0, 0x80FF, 0xFFFF), (0xFF00, 0x0100, 0x00FF)], color_type=RGB)
    assert pixels(load(data)) == [(0, 128, 255), (255, 1, 0)]


def test_16_bit_gray_with_alpha_is_scaled_and_laid_on_white() -> None:
    data = png_16bit([(0x8000, 0xFFFF), (0, 0)], color_type=GRAY_ALPHA)
    assert pixels(load(data)) == [(128, 128, 128), WHITE]


def test_cmyk_jpegs_have_adobes_polarity() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert near(load(data), RED)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(format_: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:], lossless=True)
    assert near(load(data), RED)


def test_a_multi_picture_jpeg_is_its_first_picture() -> None:
    data = encoded(Image.new("RGB", (8, 8), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)])
    assert near(load(data), RED)


def profile_bytes(name: str) -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(name))  # type: ignore[arg-type]
    return profile.tobytes()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_embedded_profile_is_converted_to_srgb(mode: str) -> None:
    swapped = swapped_profile()
    assert near(load(encoded(Image.new(mode, (2, 2), RED), "PNG", icc_profile=swapped)), BLUE, within=2)


def swapped_profile() -> bytes:
    """sRGB with the red and the blue primary exchanged."""
    data = bytearray(profile_bytes("sRGB"))
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace(b"s\0R\0G\0B", b"s\0w\0a\0p").replace(b"sRGB b", b"swap b")


@pytest.mark.parametrize("profile", [b"no profile at all", profile_bytes("LAB")], ids=["none", "of Lab"])
def test_a_profile_that_does_not_fit_is_ignored(profile: bytes) -> None:
    assert pixels(load(encoded(Image.new("RGB", (1, 1), RED), "PNG", icc_profile=profile))) == [RED]


def test_an_srgb_profile_leaves_every_value_as_it_is() -> None:
    image = Image.frombytes("RGB", (256, 1), bytes(value for i in range(256) for value in (i, 255 - i, i // 2)))
    assert load(encoded(image, "PNG", icc_profile=profile_bytes("sRGB"))).tobytes() == image.tobytes()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_error(format_: str, share: float) -> None:
    noise = Image.effect_noise((64, 64), 100).convert("RGB")
    data = encoded(noise, format_)
    with pytest.raises(DatasetError, match=rf"portrait: The {format_} data is truncated or corrupt"):
        load_rgb(io.BytesIO(data[: int(len(data) * share)]), name="portrait")


def test_a_bomb_is_refused_from_its_header() -> None:
    for side in (9_000, 12_000, 60_000):  # above our cap, Pillow's warning and Pillow's error
        data = png((side, side), color_type=RGB, rows=[])
        with pytest.raises(DatasetError, match=f"more than {MAX_PIXELS:,} pixels"):
            load(data)
    with pytest.raises(DatasetError, match="more than 89,478,485 pixels"):
        load_rgb(io.BytesIO(data), name="image", max_pixels=10**12)


def test_the_cap_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert load_rgb(io.BytesIO(data), name="image", max_pixels=100).size == (10, 10)
    with pytest.raises(DatasetError, match=r"more than 99 pixels\. Scale it down"):
        load_rgb(io.BytesIO(data), name="image", max_pixels=99)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"just some text", "a text file by content"),
        (b"GIF89a", "truncated or corrupt"),
        (b"II*\0\x08\0", "truncated or corrupt"),
        (b"MM\0*\0\0\0\x08\xff\xff", "truncated or corrupt"),
        (b"BM" + bytes(12) + b"\x28" + bytes(60), "truncated or corrupt"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "truncated or corrupt"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "truncated or corrupt"),
        (b"\xff\xd8\xff" + bytes(100), "truncated or corrupt"),
        (b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(100), "truncated or corrupt"),
    ],
)
def test_what_is_no_usable_image_is_a_named_error(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "portrait.png"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"portrait\.png: .*{message}"):
        load_rgb(path)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_give_an_image_or_a_named_error(format_: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(two_halves(), format_, icc_profile=profile_bytes("sRGB"), exif=Image.Exif().tobytes()))
    for place, value in changes:
        data[place % len(data)] = value
    message = "image: it can be read"
    try:
        load(bytes(data))
    except DatasetError as error:
        message = error.message
    assert message.startswith("image: ")


def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DatasetError, match=r"pipe\.png: This is not a regular file"):
        load_rgb(tmp_path / "pipe.png")


def test_a_missing_file_and_a_folder_are_named_errors(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.png: The file cannot be read: No such file"):
        load_rgb(tmp_path / "gone.png")
    with pytest.raises(DatasetError, match=r"not a regular file|cannot be read"):
        load_rgb(tmp_path)


def progressive_with_scans(count: int) -> bytes:
    """A valid progressive JPEG with `count` copies of its last scan."""
    data = encoded(Image.effect_noise((16, 16), 50), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    assert load(progressive_with_scans(50)).size == (16, 16)
    with pytest.raises(DatasetError, match=r"image: The JPEG has more than 100 scans\. Save it again\."):
        load(progressive_with_scans(101))


def test_what_is_appended_to_a_jpeg_or_embedded_in_it_is_no_scan() -> None:
    data = encoded(two_halves(), "JPEG", comment=b"\xff\xda\0\0" * 200)
    assert load(data + b"\xff\xda\0\0" * 200).size == (32, 16)


def test_the_error_of_a_damaged_header_is_always_the_same() -> None:
    with pytest.raises(DatasetError, match=r"image: The PNG data is truncated or corrupt\. Save it again\."):
        load(b"\x89PNG\r\n\x1a\n and nothing of a PNG")


def drawn(size: tuple[int, int] = (48, 40)) -> Image.Image:
    return Image.frombytes("RGB", (6, 5), random.Random(3).randbytes(90)).resize(size, Image.Resampling.BICUBIC)


def with_text(kind: str, *, count: int = 1) -> bytes:
    info = PngInfo()
    for index in range(count):
        if kind == "itxt":
            info.add_itxt(f"workflow{index}", "a" * 1_500_000, zip=True)
        else:
            info.add_text(f"workflow{index}", "a" * (1_500_000 if count == 1 else 1_000_000), zip=True)
    return encoded(drawn(), "PNG", pnginfo=info)


def broken_checksum(data: bytes, chunk: bytes) -> bytes:
    place = data.index(chunk) + 4 + int.from_bytes(data[data.index(chunk) - 4 : data.index(chunk)], "big")
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        with_text("ztxt"),
        with_text("itxt"),
        with_text("ztxt", count=70),
        encoded(drawn(), "PNG")[:-12],
        encoded(drawn(), "PNG")[:-18],
        broken_checksum(encoded(drawn(), "PNG"), b"IDAT"),
        broken_checksum(with_text("ztxt"), b"zTXt"),
    ],
    ids=["text", "itxt", "texts", "no end", "no checksum of the data", "wrong checksum", "wrong checksum of a text"],
)
def test_a_png_whose_pixels_are_whole_is_read(data: bytes) -> None:
    assert load(data).tobytes() == drawn().tobytes()


@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_its_end_mark_alone_is_read(missing: int) -> None:
    data = encoded(drawn(), "JPEG")
    assert load(data[:-missing]).tobytes() == load(data).tobytes()


@pytest.mark.parametrize("missing", range(3, 40))
def test_a_jpeg_that_lacks_pixels_is_not(missing: int) -> None:
    with pytest.raises(DatasetError, match="truncated or corrupt"):
        load(encoded(drawn(), "JPEG")[:-missing])


def test_a_webp_whose_metadata_are_cut_off_is_read() -> None:
    data = encoded(drawn(), "WEBP", lossless=True, exif=b"Exif\0\0" + b"x" * 500)
    assert load(data[:-100]).tobytes() == drawn().tobytes()


@pytest.mark.parametrize("format_", ["AVIF", "HEIF"])
def test_heic_and_avif_are_read_upright(format_: str) -> None:
    register_heif_opener()
    source = drawn((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    source.info["exif"] = exif.tobytes()
    found = load(encoded(source, format_, quality=100, exif=exif.tobytes()))
    assert found.size == (48, 64)
    expected = source.transpose(Image.Transpose.ROTATE_270).getpixel((10, 10))
    assert isinstance(expected, tuple)
    assert near(found, (expected[0], expected[1], expected[2]), at=(10, 10), within=24)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
        (b"\xff\x0a\0\0", "a JPEG XL file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a camera RAW file"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG file"),
        (b"%PDF-1.7", "a PDF file"),
    ],
)
def test_formats_that_are_not_read_are_named_with_the_same_remedy(data: bytes, name: str) -> None:
    with pytest.raises(DatasetError) as raised:
        load(data)
    assert str(raised.value) == f"image: This is {name} by content. Convert it to PNG, JPEG or WebP."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "a video file by content. Save the frames that you want to train on"),
        (b"<!DOCTYPE html><html>", "a web page by content. A site has sent it in place of the picture: download"),
        (b"\n<HTML><body>404", "a web page by content. A site has sent it in place of the picture: download"),
        (b'{"error": "not found"}', "a text file by content. Replace it by the picture."),
        ("fée".encode("utf-16"), "a text file by content. Replace it by the picture."),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer by content. Fetch the picture itself"),
        (b"PK\3\4" + bytes(30), "a zip file by content. Unpack it."),
        (b"\x7fELF\1\1\1" + bytes(30), "no image by content. Export the picture again, as PNG, JPEG or WebP."),
    ],
)
def test_what_is_no_picture_gets_a_remedy_that_helps(data: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(f"image: This is {message}")):
        load(data)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"hevc"])
def test_a_broken_heic_is_called_heic(brand: bytes) -> None:
    with pytest.raises(DatasetError, match="The HEIC data is truncated or corrupt"):
        load(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic")


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_gif_bmp_and_tiff_are_read_and_refused_when_cut(format_: str, options: dict[str, Any]) -> None:
    data = encoded(two_halves(), format_, **options)
    image = load(data)
    assert image.size == (32, 16)
    assert near(image, RED, at=(4, 8))
    assert near(image, BLUE, at=(28, 8))
    with pytest.raises(DatasetError, match=f"The {format_} data is truncated or corrupt"):
        load(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"])
def test_tiffs_of_every_mode_become_rgb(mode: str) -> None:
    source = Image.linear_gradient("L").resize((16, 16))
    if mode == "I;16":
        high = bytes(byte for value in source.tobytes() for byte in (0, value))
        image, expected = Image.frombytes("I;16", source.size, high), source.convert("RGB")
    else:
        image = source.convert("RGB").convert(mode) if mode != "LA" else source.convert("LA")
        expected = image.convert("RGB")
    data = encoded(image, "TIFF")
    found, value = load(data), expected.getpixel((8, 12))
    assert isinstance(value, tuple)
    assert near(found, (value[0], value[1], value[2]), at=(8, 12), within=2)
    assert picture_facts(data, max_pixels=MAX_PIXELS).format == "TIFF"


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_an_unknown_range_are_refused_with_a_remedy(mode: str) -> None:
    with pytest.raises(DatasetError, match=r"samples have 32 bits, .* Save it with 8 or 16 bits a channel\."):
        load(encoded(Image.new(mode, (4, 4), 700), "TIFF"))


@pytest.mark.parametrize("options", [{"transparency": 0}, {"transparency": 0, "save_all": True}])
def test_a_transparent_gif_is_laid_on_white(options: dict[str, Any]) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    assert pixels(load(encoded(image, "GIF", **options))) == [WHITE, BLUE]


def test_of_animations_and_pages_the_first_counts() -> None:
    for format_ in ("GIF", "TIFF"):
        data = encoded(two_halves(), format_, save_all=True, append_images=[Image.new("RGB", (32, 16), WHITE)])
        assert near(load(data), RED, at=(4, 8))
        assert picture_facts(data, max_pixels=MAX_PIXELS).is_animated


def test_the_orientation_of_a_tiff_is_applied_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(two_halves(), "TIFF", exif=exif)
    assert near(load(data), RED, at=(8, 2))
    facts = picture_facts(data, max_pixels=MAX_PIXELS)
    assert (facts.width, facts.height, facts.has_orientation) == (16, 32, True)


def tiff(tags: Sequence[tuple[int, int, int, int]]) -> bytes:
    """The header of a little-endian TIFF with (tag, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("photometric", "first"), [(0, 255), (1, 0)])
@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_tiff_may_count_from_white(bits: int, photometric: int, first: int) -> None:
    samples = {1: b"\x40", 8: b"\0\xff", 16: b"\0\0\xff\xff"}[bits]
    tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
    tags += [(273, 4, 1, 10 + 12 * 9 + 4), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, len(samples))]
    assert pixels(load(tiff(tags) + samples)) == [(first,) * 3, (255 - first,) * 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff([(254, 4, 1, 1), (256, 4, 1, 160), (257, 4, 1, 120)]), "a camera RAW file by content. Convert it"),
        (tiff([(256, 4, 1, 8), (257, 4, 1, 8), (50706, 1, 4, 0x401)]), "a camera RAW file by content. Convert it"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(20), "a camera RAW file by content. Convert it"),
        (tiff([(256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 2**24, 8)]), "more than 262,144 strips or tiles"),
        (tiff([(256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8)]), "truncated or corrupt|more than"),
        (encoded(Image.new("1", (9000, 9000)), "TIFF", compression="group4"), "more than 67,108,864 pixels"),
        (encoded(Image.new("1", (9000, 9000)), "GIF"), "more than 67,108,864 pixels"),
    ],
    ids=["preview", "DNG", "CR2", "strips", "sides", "packed TIFF", "packed GIF"],
)
def test_previews_of_raw_files_and_bombs_are_refused_before_they_are_decoded(data: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(data)


def test_a_large_bmp_of_runs_which_python_would_decode_is_refused() -> None:
    def bmp(width: int, height: int, runs: bytes) -> bytes:
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
        palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
        return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024) + header + palette + runs

    assert pixels(load(bmp(3, 2, b"\3\x40\0\0\3\x80\0\1"))) == [(128, 128, 128)] * 3 + [(64, 64, 64)] * 3
    with pytest.raises(DatasetError, match=r"large and run-length encoded\. Save it as PNG\."):
        load(bmp(4096, 4096, b"\0\1"))
