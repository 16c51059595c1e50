"""Beneath: nobody who exchanges a folder for a link while it is used gets to files elsewhere."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from influencerai.dataset import inspect_dataset
from influencerai.dataset.thumbnail import thumbnail
from influencerai.dataset.uploads.uploaded_files import write_caption
from influencerai.errors import InfluencerAIError
from influencerai.files import beneath
from influencerai.files.beneath import pinned
from tests.dataset.uploads.test_upload import contents, picture, upload

SECONDS, MOST_SECONDS = 1.5, 20
_EXCHANGE, _HERE = 2, -100


@contextmanager
def exchanging(first: Path, second: Path) -> Iterator[None]:
    """Exchange two entries for each other, again and again, until the end of the block."""
    libc, end = ctypes.CDLL(None), threading.Event()
    names = (_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE)

    def run() -> None:
        while not end.is_set():
            libc.renameat2(*names)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.fixture
def race(tmp_path: Path) -> tuple[Path, Path]:
    """The root of a tenant, whose folder `race/sub` is exchanged for a link to the other tenant's; and that one."""
    if sys.platform != "linux":
        pytest.skip("the system cannot exchange two entries at once")
    mine, theirs = tmp_path / "a", tmp_path / "b" / "priv"
    for folder, shade, text in ((mine / "race" / "sub", 10, "my own"), (theirs, 200, "secret")):
        folder.mkdir(parents=True)
        (folder / "p.png").write_bytes(picture(shade))
        (folder / "p.txt").write_text(text)
    (mine / "race" / ".link").symlink_to(theirs)
    return mine, theirs


def for_a_while(*, until: Callable[[], bool]) -> Iterator[None]:
    """Rounds for some time, and on a busy machine for longer."""
    begun = time.monotonic()
    while (seconds := time.monotonic() - begun) < SECONDS or (seconds < MOST_SECONDS and not until()):
        yield


@pytest.mark.parametrize("dataset", ["race", "race/sub"])
def test_an_exchanged_folder_leads_nowhere_else(race: tuple[Path, Path], dataset: str) -> None:
    root, theirs = race
    before, inner = contents(theirs), "p.png" if dataset == "race/sub" else "sub/p.png"
    own = thumbnail(root / "race/sub/p.png", inside=root / "race")
    done: Counter[str] = Counter()
    with exchanging(root / "race" / "sub", root / "race" / ".link"):
        for _ in for_a_while(until=lambda: done["reads"] > 2 and done["writes"] > 0):
            with suppress(OSError, InfluencerAIError), pinned(root, dataset) as folder:
                assert thumbnail(folder / inner, inside=folder) == own
                done["reads"] += 1
            with suppress(OSError, InfluencerAIError), pinned(root, dataset) as folder:
                assert "secret" not in {image.caption for image in inspect_dataset(folder).images}
            with suppress(OSError, InfluencerAIError), pinned(root, dataset) as folder:
                write_caption(folder, inner, "my own")
                done["writes"] += 1
            with suppress(OSError, InfluencerAIError), pinned(root, dataset) as folder:
                upload(folder, {"new.png": picture(3)}, replace=True)
    assert contents(theirs) == before
    assert done["reads"] > 2
    assert done["writes"] > 0


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "sub/../../x", ".."])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"secret")
    folder = tmp_path / "me"
    (folder / "sub").mkdir(parents=True)
    with pytest.raises(OSError, match=r"Invalid|not permitted|No such"):
        beneath.open_file(folder, name)


def test_links_are_not_followed_and_only_regular_files_are_opened(tmp_path: Path) -> None:
    folder = tmp_path / "me"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    for name in ("link", "out/secret", "pipe", "sub"):
        with pytest.raises(OSError, match=r"."):
            beneath.open_file(folder, name)


def test_a_pinned_folder_stays_the_same_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "a.png").write_bytes(picture(1))
    with pinned(tmp_path, "me") as folder:
        (tmp_path / "me").rename(tmp_path / "you")
        (tmp_path / "me").mkdir()
        assert [image.path for image in inspect_dataset(folder).images] == ["a.png"]
        assert beneath.shown_name(folder) == "you"


def test_a_folder_that_is_made_goes_again_where_it_stays_empty(tmp_path: Path) -> None:
    with pinned(tmp_path, "data/me", make=True) as folder:
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())
    with pinned(tmp_path, "data/me", make=True) as folder:
        (folder / "a").write_bytes(b"")
    assert (tmp_path / "data/me/a").exists()
    with pytest.raises(FileNotFoundError), pinned(tmp_path, "gone"):
        pass
