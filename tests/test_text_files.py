"""Text files: every encoding in which editors save plain text is read by one function."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from influencerai.text_files import decode_text, read_text_file

TEXTS = [
    "ohwx woman, smiling",
    "ohwx, lächelnd, rotes Haar\r\n",
    "魔女が笑う",
    "魔女が笑う, ohwx",
    "마녀가 웃는다",
    "ведьма улыбается",
    "ميساء تبتسم",
    "แม่มดยิ้ม",
    "夏目\n笑顔",
    "ohwx 😀",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_unicode_is_read_with_and_without_a_mark(text: str, mark: bytes, encoding: str) -> None:
    assert decode_text(mark + text.encode(encoding)).text == text


@pytest.mark.parametrize(
    "text", ["ohwx woman", "rotes Haar, lächelnd", "魔女が笑う", "마녀가 웃는다", "ведьма улыбается"]
)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_needs_no_mark(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)).text == text


@pytest.mark.parametrize("text", ["lächelnd", "une fée, café", "niño", "“quoted”, 5 €", "é", "Åsa på ö"])
def test_windows_1252_is_read_and_said(text: str) -> None:
    found = decode_text(text.encode("cp1252"))
    assert (found.text, found.warning) == (text, "is not UTF-8 and is read as Windows-1252.")


@pytest.mark.parametrize("end", [b"\x1a", b"\0", b"\0\0\0", b"\x1a\r\n", b"\x1a\0\0\0\0\0"])
@pytest.mark.parametrize("text", ["ohwx woman", "fée", "魔女"])
def test_marks_of_the_end_are_no_part_of_a_text(text: str, end: bytes) -> None:
    assert decode_text(text.encode() + end).text == text


@pytest.mark.parametrize("data", [b"", b"\0", b"a\0b", b"\x81", b"\xff\xfe", b"\xff", b"\0\0\0\0", bytes(range(256))])
def test_any_bytes_give_a_text(data: bytes) -> None:
    decode_text(data)


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("smiling", "utf-16")
    assert read_text_file(tmp_path / "a.txt", limit=16).text == "smiling"
    with pytest.raises(ValueError, match="it is larger than 15 bytes"):
        read_text_file(tmp_path / "a.txt", limit=15)
