from __future__ import annotations

import io

from PIL import Image, ImageChops

from influencerai.generate.comparison_grid import Row, Section, comparison_grid, grid_size
from influencerai.generate.picture_record import encoded

COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255), "lime": (0, 255, 0)}


def picture(color: str, *, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, color)


def area(grid: Image.Image, color: str) -> tuple[int, int, int, int]:
    """The box that holds all pixels of the color."""
    distance = ImageChops.difference(grid, Image.new("RGB", grid.size, COLORS[color])).convert("L")
    box = distance.point(lambda value: 255 * (value == 0)).getbbox()
    assert box is not None
    return box


def test_pictures_stand_under_their_columns_and_beside_their_rows() -> None:
    rows = [
        Row(label="seed 0", images=[picture("red"), picture("blue")]),
        Row(label="seed 1", images=[picture("lime")]),
    ]
    grid = comparison_grid([Section(title="ohwx", rows=rows)], columns=["base model", "epoch 5"], title="model")
    red, blue, lime = (area(grid, color) for color in ("red", "blue", "lime"))
    assert (red[2] - red[0], red[3] - red[1]) == (64, 64)
    assert (red[1], red[3]) == (blue[1], blue[3])
    assert red[2] < blue[0]
    assert (red[0], red[2]) == (lime[0], lime[2])
    assert red[3] < lime[1]
    left = grid.crop((0, red[1], red[0], red[3]))
    above = grid.crop((blue[0], 0, blue[2], blue[1]))
    assert len(left.getcolors() or []) > 1, "the row's label"
    assert len(above.getcolors() or []) > 1, "the column's label"


def test_the_size_is_known_before_anything_is_drawn() -> None:
    words = "a long prompt in front of a blue wall " * 9
    sections = [Section(title=words, rows=[Row(label=words, images=[picture("red")] * 3)] * 2)] * 4
    grid = comparison_grid(sections, columns=[words] * 3, title=words)
    width, height = grid_size(64, columns=3, rows=[2] * 4)
    assert grid.width <= width
    assert grid.height <= height


def test_a_grid_is_marked_as_no_picture_to_train_on() -> None:
    grid = comparison_grid([Section(title="", rows=[Row(label="", images=[picture("red")])])], columns=[""])
    with Image.open(io.BytesIO(encoded(grid))) as found:
        assert found.info["Software"] == "InfluencerAI"


def test_an_empty_cell_stays_white_and_a_smaller_picture_stands_in_the_middle() -> None:
    row = Row(label="", images=[None, picture("red", size=(32, 16)), picture("blue")])
    grid = comparison_grid([Section(title="", rows=[row])], columns=["", "", ""])
    red, blue = area(grid, "red"), area(grid, "blue")
    assert (red[0] + red[2]) // 2 - (blue[0] + blue[2]) // 2 == -(64 + max(4, 64 // 48))
    assert (red[1] + red[3]) // 2 == (blue[1] + blue[3]) // 2
