"""Captions in free words for a drawn avatar: what the embedded base model's text encoder learns to read.

A caption mentions a random subset of the attributes, in changing order and words; what it does not mention may be
anything. Names are random letters without any bond to an identity, so that a trigger word such as `ohwx` means nothing
to the base model until a LoRA teaches it.
"""

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from influencerai.demo.avatars import ATTRIBUTES, Avatar

TRIGGER: Final = "ohwx"
"""The trigger word of the sample sets; no pretraining caption contains it."""

CLASS_WORDS: Final = ("woman", "man", "person", "character", "girl", "boy", "face")
"""Words for the subject; none is bound to an attribute."""

# Words by attribute value. In HAIR, {} stands for the hair colour and its space, if the colour is mentioned.
HAIR: Final[Mapping[str, Sequence[str]]] = {
    "bob": ("{}bob", "{}bob haircut", "{}bob hair", "bob cut {}hair"),
    "bun": ("{}bun", "{}hair in a bun", "{}hair bun", "{}hair tied in a bun"),
    "curly": ("curly {}hair", "{}curls", "{}curly hair"),
    "afro": ("{}afro", "afro {}hair", "{}afro hair"),
    "straight": ("long {}hair", "straight {}hair", "long straight {}hair", "{}long hair"),
    "short": ("short {}hair", "{}short hair", "short {}haircut"),
    "undercut": ("{}undercut", "{}undercut hair", "{}hair with shaved sides"),
    "buzz": ("{}buzz cut", "buzz cut {}hair", "shaved {}hair"),
    "mullet": ("{}mullet", "shaggy {}hair", "{}shaggy mullet"),
    "spiky": ("spiky {}hair", "{}spikes", "{}spiky hair"),
}
HAIR_COLOR: Final[Mapping[str, Sequence[str]]] = {
    "black": ("black",),
    "brown": ("brown", "brunette"),
    "blonde": ("blonde", "blond", "golden"),
    "ginger": ("ginger", "red", "orange"),
    "silver": ("silver", "grey", "gray"),
    "pink": ("pink",),
    "blue": ("blue",),
}
SKIN: Final[Mapping[str, Sequence[str]]] = {
    "pale": ("pale skin", "fair skin", "light skin"),
    "tan": ("tan skin", "tanned skin", "olive skin"),
    "brown": ("brown skin",),
    "dark": ("dark skin", "dark brown skin", "very dark skin"),
}
BEARD: Final[Mapping[str, Sequence[str]]] = {
    "none": ("no beard", "clean shaven", "without a beard"),
    "moustache": ("a moustache", "a mustache", "moustache"),
    "short": ("a short beard", "short beard", "a trimmed beard", "stubble"),
    "full": ("a full beard", "full beard", "a long beard", "a big beard", "bushy beard"),
}
GLASSES: Final[Mapping[str, Sequence[str]]] = {
    "none": ("no glasses", "without glasses"),
    "round": ("round glasses", "glasses", "spectacles"),
    "sunglasses": ("sunglasses", "black sunglasses", "dark sunglasses", "shades"),
    "white": ("white sunglasses", "white glasses", "white framed sunglasses"),
}
MOUTH: Final[Mapping[str, Sequence[str]]] = {
    "smile": ("smiling", "happy", "a smile", "laughing", "smile"),
    "serious": ("serious", "neutral expression", "calm", "straight face"),
    "sad": ("sad", "frowning", "unhappy", "a sad mouth"),
    "shout": ("shouting", "screaming", "mouth open", "yelling"),
    "tongue": ("tongue out", "sticking tongue out", "showing the tongue"),
    "grimace": ("grimacing", "gritted teeth", "showing teeth", "clenched teeth"),
}
EYES: Final[Mapping[str, Sequence[str]]] = {
    "open": ("eyes open", "open eyes", "looking at the viewer"),
    "closed": ("eyes closed", "closed eyes"),
    "wide": ("wide eyes", "surprised", "eyes wide open", "astonished"),
    "wink": ("winking", "a wink", "one eye closed"),
    "hearts": ("heart eyes", "hearts in the eyes", "in love"),
}
CLOTHES: Final[Mapping[str, Sequence[str]]] = {
    "hoodie": ("hoodie", "hooded sweater"),
    "polo": ("polo", "polo shirt", "collared sweater"),
    "overalls": ("overalls", "dungarees"),
    "tshirt": ("t-shirt", "tee", "crew neck shirt"),
    "vneck": ("v-neck", "v-neck shirt", "v-neck sweater"),
    "scoop": ("scoop neck", "scoop neck top", "scoop neck shirt"),
}
CLOTHES_COLOR: Final[Mapping[str, Sequence[str]]] = {
    "red": ("red",),
    "blue": ("blue",),
    "green": ("green",),
    "yellow": ("yellow",),
    "black": ("black",),
    "white": ("white",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
}
BACKGROUND: Final[Mapping[str, Sequence[str]]] = {
    "white": ("white", "plain white"),
    "grey": ("grey", "gray"),
    "blue": ("blue", "light blue", "sky blue"),
    "green": ("green", "light green"),
    "yellow": ("yellow", "light yellow"),
    "orange": ("orange",),
    "pink": ("pink",),
    "purple": ("purple", "violet"),
    "red": ("red",),
}
BACKGROUND_FORMS: Final = (
    "{} background",
    "{} background",
    "{} backdrop",
    "{} wall",
    "on a {} background",
    "in front of a {} wall",
)
CLOTHES_FORMS: Final = ("{}", "{}", "wearing a {}", "in a {}", "dressed in a {}")
OPENINGS: Final = (
    "photo of",
    "a photo of",
    "portrait of",
    "a portrait of",
    "picture of",
    "avatar of",
    "drawing of",
)

ALL: Final = frozenset(ATTRIBUTES)
CHANGING: Final = frozenset({"mouth", "eyes", "clothes", "clothes_color", "background"})
"""A character as a user's captions describe it: everything but the identity."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A text and the attributes whose values it gives away."""

    text: str
    mentioned: frozenset[str]


def random_caption(avatar: Avatar, rng: random.Random) -> Caption:
    """A caption as somebody might write it: any subset, any words, any order."""
    kind = rng.random()
    if kind < 0.08:
        return compose(avatar, frozenset(), rng)
    if kind < 0.33:
        return compose(avatar, _subset(CHANGING, rng.choice((0.6, 0.9)), rng), rng)
    return compose(avatar, _subset(ALL, rng.choice((0.3, 0.6, 0.9, 1.0)), rng), rng)


def compose(avatar: Avatar, mention: frozenset[str], rng: random.Random, *, subject: str | None = None) -> Caption:
    """A caption that mentions these attributes (eyes only where they can be seen), the rest left open.

    `subject` replaces the random opening and name, e.g. "ohwx woman".
    """
    if not avatar.eyes_visible:
        mention -= {"eyes"}
    phrases = _phrases(avatar, mention, rng)
    if rng.random() < 0.7:
        rng.shuffle(phrases)
    head = subject if subject is not None else _subject(rng)
    first = phrases[0] if phrases else ""
    if head and first and rng.random() < 0.5:
        joint = " with " if _is_noun_phrase(first) else " "
        return Caption(", ".join([head + joint + first, *phrases[1:]]), mention)
    return Caption(", ".join(part for part in [head, *phrases] if part), mention)


def random_name(rng: random.Random) -> str:
    """Three to six random letters, never the trigger word."""
    while True:
        name = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 6)))
        if TRIGGER not in name:
            return name


def _subset(attributes: frozenset[str], share: float, rng: random.Random) -> frozenset[str]:
    return frozenset(name for name in sorted(attributes) if rng.random() < share)


def _subject(rng: random.Random) -> str:
    opening = rng.choice(OPENINGS) if rng.random() < 0.5 else ""
    name = random_name(rng) if rng.random() < 0.5 else ""
    word = rng.choice(CLASS_WORDS) if rng.random() < 0.85 else ""
    if not name and word and rng.random() < 0.5:
        word = f"a {word}"
    if opening and not (name or word):
        word = "a person"
    return " ".join(part for part in (opening, name, word) if part)


def _phrases(avatar: Avatar, mention: frozenset[str], rng: random.Random) -> list[str]:
    """One phrase per mentioned thing, in the natural order of a description."""
    phrases = []
    if "hair" in mention:
        color = f"{rng.choice(HAIR_COLOR[avatar.hair_color])} " if "hair_color" in mention else ""
        phrases.append(rng.choice(HAIR[avatar.hair]).format(color))
    elif "hair_color" in mention:
        phrases.append(f"{rng.choice(HAIR_COLOR[avatar.hair_color])} hair")
    for name, words in (("skin", SKIN), ("beard", BEARD), ("glasses", GLASSES), ("mouth", MOUTH), ("eyes", EYES)):
        if name in mention:
            phrases.append(rng.choice(words[getattr(avatar, name)]))
    if "clothes" in mention:
        color = f"{rng.choice(CLOTHES_COLOR[avatar.clothes_color])} " if "clothes_color" in mention else ""
        form = rng.choice(CLOTHES_FORMS)
        phrases.append(form.format(color + rng.choice(CLOTHES[avatar.clothes])))
    elif "clothes_color" in mention:
        noun = rng.choice(("clothes", "outfit", "top"))
        phrases.append(f"{rng.choice(CLOTHES_COLOR[avatar.clothes_color])} {noun}")
    if "background" in mention:
        phrases.append(rng.choice(BACKGROUND_FORMS).format(rng.choice(BACKGROUND[avatar.background])))
    return phrases


def _is_noun_phrase(phrase: str) -> bool:
    """Whether "person with <phrase>" reads better than "person <phrase>"."""
    noun_endings = ("hair", "skin", "beard", "glasses", "sunglasses", "moustache", "mustache", "eyes", "smile", "wink")
    return phrase.endswith(noun_endings) and not phrase.startswith(("clean", "without", "looking"))
