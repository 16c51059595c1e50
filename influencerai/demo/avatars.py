"""Cartoon people drawn from a handful of attributes: the world that the embedded base model knows.

The drawings are parts of the avataaars set by Pablo Stanley (see NOTICE), assembled by `python_avatars` and rasterised
by `resvg_py`. Both belong to the `dev` extra: they draw pretraining data, benchmark references and the shipped sample
sets; nothing that a user runs needs them. Parts that `python_avatars` took from elsewhere are left out.
"""

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Final, Self

from PIL import Image

HAIR_PARTS: Final[Mapping[str, str]] = {
    "bob": "BOB",
    "bun": "BUN",
    "curly": "CURLY",
    "afro": "FRO",
    "straight": "STRAIGHT_STRAND",
    "short": "SHORT_FLAT",
    "undercut": "FRIZZLE",
    "buzz": "CAESAR",
    "mullet": "SHAGGY_MULLET",
    "spiky": "SHORT_DREADS_2",
}
HAIR_COLORS: Final[Mapping[str, str]] = {
    "black": "#1F1A1C",
    "brown": "#74402A",
    "blonde": "#E6C468",
    "ginger": "#D2521B",
    "silver": "#C6CBD2",
    "pink": "#F283B0",
    "blue": "#2F5FD0",
}
SKIN_COLORS: Final[Mapping[str, str]] = {
    "pale": "#FFE2CC",
    "tan": "#E3A56C",
    "brown": "#A5663A",
    "dark": "#593626",
}
BEARD_PARTS: Final[Mapping[str, str]] = {
    "none": "NONE",
    "moustache": "MOUSTACHE_FANCY",
    "short": "BEARD_LIGHT",
    "full": "BEARD_MAGESTIC",
}
GLASSES_PARTS: Final[Mapping[str, str]] = {
    "none": "NONE",
    "round": "ROUND",
    "sunglasses": "WAYFARERS",
    "white": "KURT",
}
MOUTH_PARTS: Final[Mapping[str, str]] = {
    "smile": "SMILE",
    "serious": "SERIOUS",
    "sad": "SAD",
    "shout": "SCREAM_OPEN",
    "tongue": "TONGUE",
    "grimace": "GRIMACE",
}
EYES_PARTS: Final[Mapping[str, str]] = {
    "open": "DEFAULT",
    "closed": "HAPPY",
    "wide": "SURPRISED",
    "wink": "WINK",
    "hearts": "HEART",
}
CLOTHES_PARTS: Final[Mapping[str, str]] = {
    "hoodie": "HOODIE",
    "polo": "COLLAR_SWEATER",
    "overalls": "OVERALL",
    "tshirt": "SHIRT_CREW_NECK",
    "vneck": "SHIRT_V_NECK",
    "scoop": "SHIRT_SCOOP_NECK",
}
CLOTHES_COLORS: Final[Mapping[str, str]] = {
    "red": "#DC3B3B",
    "blue": "#3478D8",
    "green": "#3E9B4F",
    "yellow": "#F4CE3C",
    "black": "#262B33",
    "white": "#F6F6F6",
    "purple": "#8447BE",
    "pink": "#FF7FB5",
}
BACKGROUND_COLORS: Final[Mapping[str, str]] = {
    "white": "#FFFFFF",
    "grey": "#8D939B",
    "blue": "#8CC8F5",
    "green": "#9FDB9A",
    "yellow": "#FFEB8F",
    "orange": "#FFA552",
    "pink": "#FFBBD3",
    "purple": "#BBA0EA",
    "red": "#E2574F",
}

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "hair": tuple(HAIR_PARTS),
    "hair_color": tuple(HAIR_COLORS),
    "skin": tuple(SKIN_COLORS),
    "beard": tuple(BEARD_PARTS),
    "glasses": tuple(GLASSES_PARTS),
    "mouth": tuple(MOUTH_PARTS),
    "eyes": tuple(EYES_PARTS),
    "clothes": tuple(CLOTHES_PARTS),
    "clothes_color": tuple(CLOTHES_COLORS),
    "background": tuple(BACKGROUND_COLORS),
}
"""Every attribute of an `Avatar` and the values it takes, in a fixed order (classifier heads index into it)."""

IDENTITY: Final = ("hair", "hair_color", "skin", "beard", "glasses")
"""The attributes of a person's identity; the others change from picture to picture."""

OPAQUE_GLASSES: Final = frozenset({"sunglasses", "white"})
"""Glasses behind which the eyes cannot be seen."""

CHARACTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "ava": ("curly", "ginger", "pale", "none", "round"),
    "leo": ("undercut", "blonde", "dark", "short", "none"),
    "mia": ("bob", "pink", "tan", "none", "sunglasses"),
    "kai": ("spiky", "silver", "brown", "moustache", "white"),
}
"""Identities that pretraining never saw, in `IDENTITY` order: what a LoRA has to teach the base model."""

VIEW_BOX: Final = (8, 14, 248, 248)
"""The square of the 264x280 drawing that is shown: head and shoulders (x, y, width, height)."""


@dataclass(frozen=True, slots=True)
class Avatar:
    """One drawing, by the name of each attribute's value."""

    hair: str
    hair_color: str
    skin: str
    beard: str
    glasses: str
    mouth: str
    eyes: str
    clothes: str
    clothes_color: str
    background: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in ATTRIBUTES[field.name]:
                raise ValueError(f"{field.name} is {value!r}; it can be {', '.join(ATTRIBUTES[field.name])}")

    @classmethod
    def random(cls, rng: random.Random) -> Self:
        """Every attribute drawn on its own, uniformly over its values: none is rarer than another."""
        return cls(**{name: rng.choice(values) for name, values in ATTRIBUTES.items()})

    @property
    def identity(self) -> tuple[str, ...]:
        """The values of the `IDENTITY` attributes."""
        return tuple(getattr(self, name) for name in IDENTITY)

    @property
    def eyes_visible(self) -> bool:
        return self.glasses not in OPAQUE_GLASSES

    def changed(self, **attributes: str) -> Self:
        """The same drawing with some attributes set anew."""
        return replace(self, **attributes)


def identities() -> list[tuple[str, ...]]:
    """Every identity there is, in a fixed order."""
    return list(product(*(ATTRIBUTES[name] for name in IDENTITY)))


def render(avatar: Avatar, size: int = 128) -> Image.Image:
    """The drawing as an RGB image of `size` x `size` pixels."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=_svg(avatar), width=size, height=size,
        background=BACKGROUND_COLORS[avatar.background], skip_system_fonts=True,
    )  # fmt: skip
    return Image.open(io.BytesIO(png)).convert("RGB")


def _svg(avatar: Avatar) -> str:
    import python_avatars as pa

    drawing: str = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=pa.HairType[HAIR_PARTS[avatar.hair]],
        hair_color=HAIR_COLORS[avatar.hair_color],
        facial_hair=pa.FacialHairType[BEARD_PARTS[avatar.beard]],
        facial_hair_color=HAIR_COLORS[avatar.hair_color],
        skin_color=SKIN_COLORS[avatar.skin],
        accessory=pa.AccessoryType[GLASSES_PARTS[avatar.glasses]],
        eyebrows=pa.EyebrowType.DEFAULT_NATURAL,
        eyes=pa.EyeType[EYES_PARTS[avatar.eyes]],
        nose=pa.NoseType.DEFAULT,
        mouth=pa.MouthType[MOUTH_PARTS[avatar.mouth]],
        clothing=pa.ClothingType[CLOTHES_PARTS[avatar.clothes]],
        clothing_color=CLOTHES_COLORS[avatar.clothes_color],
    ).render()
    x, y, width, height = VIEW_BOX
    whole = 'width="264px" height="280px" viewBox="0 0 264 280"'
    if whole not in drawing:
        raise RuntimeError("python_avatars changed its canvas; VIEW_BOX must be measured again")
    return drawing.replace(whole, f'width="{width}" height="{height}" viewBox="{x} {y} {width} {height}"', 1)
