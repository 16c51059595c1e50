"""The pictures that the embedded base model learns from, rendered once and kept as one array."""

import json
import random
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from influencerai.demo.avatars import ATTRIBUTES, CHARACTERS, Avatar, render

SIZE = 128
"""Edge of a picture in pixels."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Pictures as uint8 [count, SIZE, SIZE, 3] (memory-mapped) and the avatars that they show."""

    pixels: NDArray[np.uint8]
    avatars: list[Avatar]


def drawn_avatar(seed: int, index: int) -> Avatar:
    """The avatar of one index, a pure function of its arguments; never one of the held-out identities."""
    rng = random.Random(f"{seed}/{index}")
    held_out = set(CHARACTERS.values())
    while True:
        avatar = Avatar.random(rng)
        if avatar.identity not in held_out:
            return avatar


def attribute_indices(avatar: Avatar) -> list[int]:
    """The position of each attribute's value in `ATTRIBUTES`, in that order."""
    return [values.index(getattr(avatar, name)) for name, values in ATTRIBUTES.items()]


def load_dataset(folder: Path, *, count: int, seed: int, workers: int = 2) -> Dataset:
    """The dataset of `folder`, rendered first if it is not there yet."""
    pixels_path, record_path = folder / "pixels.npy", folder / "dataset.json"
    record = {"count": count, "seed": seed, "size": SIZE}
    if not record_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(pixels_path, mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3))
        with get_context("spawn").Pool(workers) as pool:
            jobs = ((seed, index) for index in range(count))
            for index, picture in enumerate(pool.imap(_picture, jobs, chunksize=64)):
                pixels[index] = picture
        pixels.flush()
        record_path.write_text(json.dumps(record))
    if json.loads(record_path.read_text()) != record:
        raise SystemExit(f"{folder} holds another dataset than {record}; give another --work folder")
    avatars = [drawn_avatar(seed, index) for index in range(count)]
    return Dataset(pixels=np.load(pixels_path, mmap_mode="r"), avatars=avatars)


def _picture(job: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(render(drawn_avatar(*job), SIZE), dtype=np.uint8)
