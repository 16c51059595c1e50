"""Received names: what other programs mean by a name is stored, and no name leads out of the folder or hides there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influencerai.dataset.uploads.received_names import MAX_NAME_BYTES, received_path, storable_path
from influencerai.errors import DatasetError

AWKWARD = st.text(alphabet="./\\\0%2eaZé\u0301 ~:\u202e\u2024\uff0f\u212aCON1\ud800", max_size=12)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cat.png", "cat.png"),
        ("10_ohwx woman/cat.png", "10_ohwx woman/cat.png"),
        ("10_ohwx woman\\cat.png", "10_ohwx woman/cat.png"),
        ("./set//cat.png", "set/cat.png"),
        ("../../etc/cat.png", "cat.png"),
        ("set/../cat.png", "cat.png"),
        ("/etc/cat.png", "cat.png"),
        ("C:/me/cat.png", "cat.png"),
        ("C:\\Users\\me\\cat.png", "cat.png"),
        ("\\\\server\\share\\cat.png", "cat.png"),
        ("=?utf-8?B?a8Okc2UucG5n?=", "käse.png"),
        ("=?utf-8?Q?k=C3=A4se.png?=", "käse.png"),
        ("=?utf-8?B?a8Okc2U=?= =?utf-8?B?LnBuZw==?=", "käse.png"),
        ("=?utf-8?B?Li4vLi4vY2F0LnBuZw==?=", "cat.png"),
        ("=?no-charset?B?a8Okc2UucG5n?=", "=?no-charset?B?a8Okc2UucG5n?="),
        ("what?.png", "what?.png"),
    ],
)
def test_a_name_becomes_the_path_that_it_means(name: str, path: str) -> None:
    assert received_path(name) == path


@pytest.mark.parametrize(
    ("name", "what"), [("", "has no name"), ("cats/", "has no name"), ("..", "has no name"), ("cat.png\0.exe", "a NUL")]
)
def test_a_name_that_is_none_is_refused(name: str, what: str) -> None:
    with pytest.raises(DatasetError, match=what):
        received_path(name)


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("cat.png", "cat.png"),
        ("10_ohwx woman/cat.png", "10_ohwx woman/cat.png"),
        ("cafe\u0301.png", "café.png"),
        ("Shot 1.02.03\u202fPM.png", "Shot 1.02.03 PM.png"),
        ("my%20photo.png", "my photo.png"),
        ("k%C3%A4se.png", "käse.png"),
        ("my%2520photo.png", "my photo.png"),
        ("a%25252525.png", "a_25.png"),
        ("100% me.png", "100% me.png"),
        ("cat.png.", "cat.png"),
        ("cat.png\u2003", "cat.png"),
        ("cat\n.png", "cat_.png"),
        ("gnp.\u202etac.png", "gnp._tac.png"),
        ("\ud800.png", "_.png"),
        ("con.png", "_con.png"),
        ("LPT1", "_LPT1"),
        ("aux .tar.png", "_aux .tar.png"),
        ("connie.png", "connie.png"),
        ("x" * 216 + ".png", "x" * 216 + ".png"),
        (".hidden.png", ".hidden.png"),
    ],
)
def test_a_path_becomes_one_that_any_system_takes(path: str, stored: str) -> None:
    assert storable_path(path) == stored


@pytest.mark.parametrize("stem", ["x" * 250, "ä" * 130, "y" * 225])
def test_a_long_name_is_shortened_together_with_that_of_its_caption(stem: str) -> None:
    image, caption = storable_path(f"{stem}.webp"), storable_path(f"{stem}.txt")
    assert image.removesuffix(".webp") == caption.removesuffix(".txt")
    assert image.startswith(stem[:90])
    assert len(image.encode()) <= MAX_NAME_BYTES
    assert image != storable_path(f"{stem}z.webp")


@pytest.mark.parametrize("path", ["%2e%2e%2fcat.png", "%2e%2e/cat.png", "a%5ccat.png", "cat%00.png", "%252e%2fx"])
def test_an_escaped_separator_is_refused(path: str) -> None:
    with pytest.raises(DatasetError, match="percent escape of a separator"):
        storable_path(path)


def test_a_path_of_too_many_folders_is_refused() -> None:
    with pytest.raises(DatasetError, match="Use fewer folders"):
        storable_path("a/" * 20 + "cat.png")


@given(name=st.one_of(st.text(max_size=300), AWKWARD))
@settings(max_examples=200, deadline=None)
def test_whatever_passes_is_a_plain_path_and_stays_the_same(name: str) -> None:
    try:
        stored = storable_path(received_path(name))
    except DatasetError:
        return
    assert stored == storable_path(received_path(stored))
    assert stored.isprintable()
    assert "\\" not in stored
    for part in stored.split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode()) <= MAX_NAME_BYTES
