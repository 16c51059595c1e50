from __future__ import annotations

from PIL import Image

from influencerai.generate.grid import GAP, image_grid


def picture(color: str, *, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, color)


def test_pictures_stand_in_rows_and_columns_unscaled() -> None:
    grid = image_grid([("one", [picture("red"), picture("blue")]), ("two", [picture("lime"), picture("black")])])
    assert grid.width == 2 * 64 + 3 * GAP
    counts = {color: count for count, color in grid.getcolors(maxcolors=2**16) or []}
    assert counts[255, 0, 0] == counts[0, 0, 255] == counts[0, 255, 0] == 64 * 64
    left = [grid.getpixel((GAP + 32, y)) for y in range(grid.height)]
    assert left.index((255, 0, 0)) < left.index((0, 255, 0))
    assert (0, 0, 255) not in left


def test_labels_are_drawn_and_cost_the_rows_height() -> None:
    labelled = image_grid([("a label", [picture("red")])])
    without = image_grid([("", [picture("red")])])
    assert labelled.height > without.height
    top = labelled.crop((0, 0, labelled.width, labelled.height - without.height))
    assert len(top.getcolors() or []) > 1


def test_columns_are_headings() -> None:
    row = ("label", [picture("red"), picture("blue")])
    assert image_grid([row], columns=("before", "after")).height > image_grid([row]).height


def test_a_long_label_is_wrapped_within_the_grid() -> None:
    words = "portrait of ohwx woman smiling in front of a blue wall " * 9
    grid = image_grid([(words, [picture("red")])])
    assert grid.width == 64 + 2 * GAP
    margin = grid.crop((grid.width - 2, 0, grid.width, grid.height))
    assert margin.getcolors() == [(2 * grid.height, (255, 255, 255))]


def test_a_smaller_picture_stands_in_the_middle_of_its_cell() -> None:
    grid = image_grid([("", [picture("red"), picture("blue", size=(32, 32))])])
    blue = [x for x in range(grid.width) if grid.getpixel((x, GAP + 32)) == (0, 0, 255)]
    assert (blue[0], blue[-1]) == (GAP + 64 + GAP + 16, GAP + 64 + GAP + 47)


def test_modes_are_converted_and_nothing_is_a_white_picture() -> None:
    assert image_grid([("", [Image.new("RGBA", (8, 8), "red")])]).mode == "RGB"
    assert image_grid([]).getcolors() is not None
