"""Archives: an ordinary zip gives its files, a hostile one a named error before it costs memory or disk."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influencerai.dataset.uploads.archive import ArchiveError, members
from influencerai.errors import DatasetError

MiB = 2**20


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def special(name: str, mode: int, data: bytes = b"/etc/passwd") -> bytes:
    """A zip with one entry of a Unix mode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return buffer.getvalue()


def unpacked(
    data: bytes, *, entries: int = 100, file_bytes: int = 64 * MiB, total: int = 128 * MiB, ratio: float = 100
) -> dict[str, bytes | str]:
    """{name: its bytes, or what is wrong with it}."""
    found: dict[str, bytes | str] = {}
    for member in members(
        io.BytesIO(data), max_entries=entries, max_file_bytes=file_bytes, max_total_bytes=total, max_ratio=ratio
    ):
        try:
            found[member.name] = b"".join(member.chunks)
        except ArchiveError:
            raise
        except DatasetError as error:
            found[member.name] = str(error)
    return found


def edited(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new)


def central(data: bytes, offset: int, format_: str, value: int) -> bytes:
    """The archive with one field of its first central entry changed."""
    changed = bytearray(data)
    struct.pack_into(format_, changed, data.index(b"PK\1\2") + offset, value)
    return bytes(changed)


FLAGS, METHOD, PACKED_SIZE, SIZE = 8, 10, 20, 24
"""Offsets in a central entry."""


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_ordinary_archive_gives_its_files_in_order(method: int) -> None:
    files = {"b/cat.png": bytes(range(256)) * 4000, "a.txt": b"ohwx", "empty": b""}
    assert unpacked(zipped(files, method=method)) == files
    assert list(unpacked(zipped(files))) == list(files)


def test_folders_are_left_out() -> None:
    assert unpacked(zipped({"set/": b"", "set/sub/": b"", "set/a.png": b"a"})) == {"set/a.png": b"a"}


def test_a_folder_by_its_mode_is_left_out() -> None:
    assert unpacked(special("set", stat.S_IFDIR | 0o755, b"")) == {}


def test_names_are_utf8_with_the_flag_or_without_it_and_else_those_of_dos() -> None:
    data = zipped({"käthe.png": b"1"})
    assert list(unpacked(data)) == ["käthe.png"]
    plain = zipped({"k__the.png": b"1"})
    assert list(unpacked(edited(plain, b"k__the", b"k\xc3\xa4the"))) == ["käthe.png"]
    assert list(unpacked(edited(plain, b"k__the", b"k\x84\x84the"))) == ["kääthe.png"]


def test_a_name_that_only_claims_to_be_utf8_is_refused() -> None:
    data = edited(zipped({"ä.png": b"1"}), "ä".encode(), b"\xff\xfe")
    with pytest.raises(ArchiveError, match="no zip file, or is damaged"):
        unpacked(data)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\3\4" + bytes(100), b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"no zip file, or is damaged .* Pack the files again"):
        unpacked(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_refused(share: float) -> None:
    data = zipped({f"{index}.png": bytes(100) for index in range(20)})
    with pytest.raises(ArchiveError):
        unpacked(data[: int(len(data) * share)])


def test_a_damaged_file_is_named_and_the_others_are_given() -> None:
    data = zipped({"a.png": b"first" * 9, "b.png": b"second" * 9}, method=zipfile.ZIP_STORED)
    found = unpacked(edited(data, b"first" * 9, b"worst" * 9))
    assert "damaged in the archive (Bad CRC-32" in str(found["a.png"])
    assert found["b.png"] == b"second" * 9


def test_an_encrypted_file_is_refused() -> None:
    assert "is encrypted. Pack it without a password." in str(
        unpacked(central(zipped({"a.png": b"1"}), FLAGS, "<H", 1))["a.png"]
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(method: int) -> None:
    assert "another method than deflate" in str(unpacked(zipped({"a.png": bytes(100)}, method=method))["a.png"])
    assert "another method" in str(unpacked(central(zipped({"a.png": b"1"}), METHOD, "<H", 99))["a.png"])


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(kind: int) -> None:
    assert "a link or a device" in str(unpacked(special("a.png", kind | 0o777))["a.png"])


def test_too_many_entries_are_refused_whatever_their_count_says() -> None:
    data = zipped({f"{index}.png": b"" for index in range(11)})
    assert len(unpacked(data, entries=11)) == 11
    with pytest.raises(ArchiveError, match="11 entries; 10 are allowed"):
        unpacked(data, entries=10)
    end = bytearray(data)
    struct.pack_into("<HH", end, data.rindex(b"PK\5\6") + 8, 1, 1)
    with pytest.raises(ArchiveError, match="11 entries; 10 are allowed"):
        unpacked(bytes(end), entries=10)


def test_a_directory_of_a_million_entries_is_refused_before_it_is_read() -> None:
    entry = b"PK\1\2" + bytes(42)
    directory = entry * 1_000_000
    data = directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 0, 0)
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="too many entries"):
        unpacked(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(data) + 8 * MiB  # unpacked() itself wraps the data in a file


def test_a_file_over_the_limit_is_refused_by_what_it_declares_and_the_others_are_given() -> None:
    found = unpacked(zipped({"a.png": bytes(2001), "b.png": bytes(2000)}), file_bytes=2000)
    assert found == {"a.png": "The file is larger than 2,000 bytes.", "b.png": bytes(2000)}


def test_an_archive_over_the_limit_is_refused() -> None:
    data = zipped({"a.png": bytes(2000), "b.png": bytes(2000)})
    assert len(unpacked(data, total=4000)) == 2
    with pytest.raises(ArchiveError, match="unpacks to more than 3,999 bytes"):
        unpacked(data, total=3999)


def test_a_bomb_of_one_file_and_one_of_many_are_refused_by_their_ratio() -> None:
    with pytest.raises(ArchiveError, match="more than 100 times its size"):
        unpacked(zipped({"bomb.txt": bytes(4 * MiB)}))
    with pytest.raises(ArchiveError, match="more than 100 times its size"):
        unpacked(zipped({f"{index}.txt": bytes(MiB) for index in range(20)}))


def test_a_bomb_beside_incompressible_files_is_refused_alone() -> None:
    with io.BytesIO() as buffer, zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("noise", bytes(MiB), zipfile.ZIP_STORED)
        archive.writestr("bomb.txt", bytes(4 * MiB), zipfile.ZIP_DEFLATED)
        archive.close()
        found = unpacked(buffer.getvalue())
    assert found["noise"] == bytes(MiB)
    assert "The file unpacks to more than 100 times its size. Pack" in str(found["bomb.txt"])


def test_a_size_that_lies_is_found_out() -> None:
    data = zipped({"a.png": bytes(3000)})
    for declared in (0, 10, 2999):
        assert "damaged" in str(unpacked(central(data, SIZE, "<L", declared), file_bytes=2999)["a.png"])
    assert "has 3,000 bytes, not 3,001" in str(unpacked(central(data, SIZE, "<L", 3001))["a.png"])


def test_entries_that_share_their_bytes_are_refused() -> None:
    """The kind of bomb that unpacks one kernel many times, once for each name."""
    data = zipped({"a.png": bytes(1000), "b.png": bytes(1000)})
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    same_offset = bytearray(data)
    struct.pack_into("<L", same_offset, second + 42, 0)
    with pytest.raises(ArchiveError, match="overlap"):
        unpacked(bytes(same_offset))
    with pytest.raises(ArchiveError, match="overlap"):
        unpacked(central(data, PACKED_SIZE, "<L", second))
    for offset in (5, first, len(data), 2**32 - 1):
        with pytest.raises(ArchiveError):
            unpacked(central(data, 42, "<L", offset))


def test_a_quoted_overlap_is_refused() -> None:
    """Each file's data begins with the local header of the next, as stored bytes: all end in one kernel."""
    kernel = zipped({"b.png": bytes(1000)})
    inner = kernel[: kernel.index(b"PK\1\2")]
    with io.BytesIO() as buffer, zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", inner)
        archive.writestr("b.png", bytes(1000), zipfile.ZIP_DEFLATED)
        archive.close()
        data = bytearray(buffer.getvalue())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    struct.pack_into("<L", data, second + 42, data.index(b"PK\3\4", 4))
    with pytest.raises(ArchiveError, match="overlap"):
        unpacked(bytes(data))


def test_unpacking_takes_little_memory() -> None:
    data = zipped({"a.png": bytes(32 * MiB)})
    tracemalloc.start()
    for member in members(
        io.BytesIO(data), max_entries=1, max_file_bytes=64 * MiB, max_total_bytes=64 * MiB, max_ratio=2000
    ):
        assert sum(len(chunk) for chunk in member.chunks) == 32 * MiB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MiB


@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_give_files_or_a_named_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(zipped({"a/käthe.png": b"abc" * 50, "b.txt": b"ohwx"}))
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(ArchiveError):
        for content in unpacked(bytes(data)).values():
            assert content in (b"abc" * 50, b"ohwx", b"") or (isinstance(content, str) and content.endswith("."))
