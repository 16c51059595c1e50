"""The renderer and the captions: every value shows, captions keep to what they may say."""

import random

import pytest

from influencerai.demo.avatars import ATTRIBUTES, CHARACTERS, IDENTITY, Avatar, render
from influencerai.demo.captions import ALL, CHANGING, TRIGGER, compose, random_caption

pytest.importorskip("python_avatars")
pytest.importorskip("resvg_py")

PLAIN = Avatar(
    hair="short",
    hair_color="brown",
    skin="tan",
    beard="none",
    glasses="none",
    mouth="smile",
    eyes="open",
    clothes="hoodie",
    clothes_color="red",
    background="blue",
)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_value_of_an_attribute_draws_another_picture(attribute: str) -> None:
    drawn = {render(PLAIN.changed(**{attribute: value}), size=64).tobytes() for value in ATTRIBUTES[attribute]}
    assert len(drawn) == len(ATTRIBUTES[attribute])


def test_a_drawing_is_square_opaque_and_has_its_background_in_the_corner() -> None:
    picture = render(PLAIN, size=96)
    assert picture.size == (96, 96)
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (0x8C, 0xC8, 0xF5)


def test_the_same_avatar_draws_the_same_bytes() -> None:
    assert render(PLAIN).tobytes() == render(PLAIN.changed()).tobytes()


def test_an_unknown_value_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="skin is 'green'; it can be pale, tan"):
        PLAIN.changed(skin="green")


def test_characters_are_valid_identities_that_differ_in_most_attributes() -> None:
    for name, identity in CHARACTERS.items():
        assert PLAIN.changed(**dict(zip(IDENTITY, identity, strict=True))).identity == identity
        for other, values in CHARACTERS.items():
            differing = sum(a != b for a, b in zip(identity, values, strict=True))
            assert other == name or differing >= 3


def test_captions_never_contain_the_trigger_and_vary() -> None:
    rng = random.Random(0)
    captions = [random_caption(Avatar.random(rng), rng) for _ in range(2000)]
    assert not any(TRIGGER in caption.text for caption in captions)
    assert len({caption.text for caption in captions}) > 1900
    assert any(not caption.mentioned for caption in captions)
    assert {name for caption in captions for name in caption.mentioned} == ALL


def test_a_caption_of_changing_attributes_is_the_same_for_another_identity() -> None:
    other = PLAIN.changed(hair="afro", hair_color="pink", skin="dark", beard="full", glasses="round")
    for seed in range(50):
        ours = compose(PLAIN, CHANGING, random.Random(seed), subject="ohwx person")
        assert ours == compose(other, CHANGING, random.Random(seed), subject="ohwx person")


def test_hidden_eyes_are_not_mentioned() -> None:
    caption = compose(PLAIN.changed(glasses="sunglasses"), ALL, random.Random(0))
    assert caption.mentioned == ALL - {"eyes"}
