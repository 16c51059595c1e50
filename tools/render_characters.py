"""Draw the sample character sets that ship with the package: pictures and captions as a user would write them.

python -m tools.render_characters [--out influencerai/demo/characters] [--names ava leo]
"""

import argparse
import random
from pathlib import Path

from influencerai.demo.avatars import ATTRIBUTES, CHARACTERS, IDENTITY, Avatar, render
from influencerai.demo.captions import CHANGING, TRIGGER, compose

PICTURES = 20
SHIPPED = ("ava", "leo")
CLASS_WORD = "person"


def character_avatars(name: str, count: int, seed: int = 0) -> list[Avatar]:
    """The character `count` times, in changing expressions, clothes and backgrounds.

    Each changing attribute goes through all of its values in a shuffled round before one comes again, so that a small
    set shows everything.
    """
    rng = random.Random(f"{seed}/{name}")
    rounds = {}
    for attribute in sorted(CHANGING):
        values: list[str] = []
        while len(values) < count:
            values += rng.sample(ATTRIBUTES[attribute], len(ATTRIBUTES[attribute]))
        rounds[attribute] = values
    identity = dict(zip(IDENTITY, CHARACTERS[name], strict=True))
    return [
        Avatar(**identity, **{attribute: values[number] for attribute, values in rounds.items()})
        for number in range(count)
    ]


MENTIONED: dict[str, float] = {"eyes": 0.5}
"""Share of the captions that name an attribute, where it is not 0.9; users rarely write about eyes."""


def character_caption(avatar: Avatar, rng: random.Random) -> str:
    """The trigger and some of what changes, as a user would write; nothing about who it is.

    A caption that named everything every time would teach the LoRA nothing about prompts that leave something out.
    """
    named = frozenset(name for name in sorted(CHANGING) if rng.random() < MENTIONED.get(name, 0.9))
    return compose(avatar, named, rng, subject=f"{TRIGGER} {CLASS_WORD}").text


def write_set(name: str, folder: Path) -> None:
    """Write the pictures as PNG and the captions beside them; files already there are overwritten."""
    rng = random.Random(f"captions/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    for number, avatar in enumerate(character_avatars(name, PICTURES), start=1):
        render(avatar).save(folder / f"{name}_{number:02d}.png", optimize=True)
        (folder / f"{name}_{number:02d}.txt").write_text(character_caption(avatar, rng) + "\n")


def main() -> None:
    """Write the sets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("influencerai/demo/characters"))
    parser.add_argument("--names", nargs="+", choices=sorted(CHARACTERS), default=SHIPPED)
    arguments = parser.parse_args()
    for name in arguments.names:
        write_set(name, arguments.out / name)


if __name__ == "__main__":
    main()
