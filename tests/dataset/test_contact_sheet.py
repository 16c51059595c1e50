"""Contact sheet: every image with its crop frame, and no part of the dataset itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from influencerai.dataset import inspect_dataset
from influencerai.dataset.contact_sheet import SIDE, contact_sheet
from influencerai.training_plan.buckets import Bucket, resize_and_crop


@pytest.mark.slow
def test_the_frame_stands_where_the_image_is_cropped(tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, 2 * SIDE), (10, 20, 200)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("ohwx 魔女 " + "and more " * 100)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    report = inspect_dataset(tmp_path, trigger_word="ohwx")
    crops = {"a.png": resize_and_crop(SIDE, 2 * SIDE, Bucket(64, 64))}
    sheet = Image.open(io.BytesIO(contact_sheet(tmp_path, report.images, crops=crops))).convert("RGB")
    left = (SIDE - SIDE // 2) // 2 + 16
    column = [sheet.getpixel((left + SIDE // 4, 16 + y)) for y in range(SIDE)]
    bright = [y for y, pixel in enumerate(column) if pixel == (10, 20, 200)]
    assert bright == list(range(SIDE // 4 + 2, 3 * SIDE // 4 - 2))
    assert column[SIDE // 4] == (255, 87, 34)
    assert sheet.width == 16 + 2 * (SIDE + 16)


def test_a_sheet_in_the_dataset_is_no_image_of_it(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    images = inspect_dataset(tmp_path).images
    (tmp_path / "overview.png").write_bytes(contact_sheet(tmp_path, images, crops={}))
    report = inspect_dataset(tmp_path)
    assert [image.path for image in report.images] == ["a.png"]
    assert [group.paths for group in report.left_out] == [("overview.png",)]
