"""The files of a zip archive, one after another and in chunks."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from influencerai.errors import DatasetError

CHUNK_BYTES = 2**18
SMALL_BYTES = 2**20
"""Up to this size the ratio does not count: a short text of one letter packs better than any bomb."""

_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""zipfile unpacks the others without a bound on memory."""
_DIRECTORY_BYTES = 2**10
"""Room for one entry in the central directory: 46 bytes, a name, times and a comment."""
_ENCRYPTED, _UTF8 = 0x1, 0x800
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_REMEDY = "Pack the files again, as an ordinary zip archive."


class ArchiveError(DatasetError):
    """The archive as a whole cannot be used."""


@dataclass(frozen=True)
class Member:
    """One file of an archive; read it before taking the next.

    `chunks` raises DatasetError for what is wrong with this file alone, ArchiveError for the whole.
    """

    name: str
    """As the archive spells it, folders included; not to be trusted."""
    chunks: Iterator[bytes]


@dataclass
class _Archive:
    """An open archive, its limits, and how much has been unpacked of it."""

    file: zipfile.ZipFile
    packed_bytes: int
    max_file_bytes: int
    max_total_bytes: int
    max_ratio: float
    unpacked_bytes: int = 0


class _Capped:
    """A file of which no single read returns more than `cap` bytes, whatever the archive asks for."""

    def __init__(self, file: BinaryIO, *, cap: int) -> None:
        self.file = file
        self.cap = cap

    def read(self, size: int = -1, /) -> bytes:
        data = self.file.read(min(size, self.cap + 1) if size >= 0 else self.cap + 1)
        if len(data) > self.cap:
            raise ArchiveError("The archive holds too many entries.", remedy="Split it into smaller ones.")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


def members(
    file: BinaryIO, *, max_entries: int, max_file_bytes: int, max_total_bytes: int, max_ratio: float
) -> Iterator[Member]:
    """The files of a zip archive, without folders, in the archive's order.

    The archive's own figures are not trusted: entries and unpacked bytes are counted.

    Args:
        file: the archive, seekable.
        max_entries: cap on the entries, folders and rubbish included.
        max_file_bytes: cap on one file, unpacked.
        max_total_bytes: cap on all files, unpacked.
        max_ratio: cap on unpacked over packed bytes, of one file and of the archive.

    Raises:
        ArchiveError: no zip archive, damaged, too many entries, entries that share bytes, or over a limit as a whole.
    """
    packed_bytes = file.seek(0, io.SEEK_END)
    with _opened(file, max_entries=max_entries) as opened:
        archive = _Archive(opened, packed_bytes, max_file_bytes, max_total_bytes, max_ratio)
        infos = opened.infolist()
        if len(infos) > max_entries:
            raise ArchiveError(
                f"The archive holds {len(infos):,} entries; {max_entries:,} are allowed.",
                remedy="Split it into smaller ones.",
            )
        with _wrapped(ArchiveError, "The archive is damaged"):
            _check_layout(file, infos, end=opened.start_dir)
        _check_whole(archive, sum(info.file_size for info in infos))
        for info in infos:
            name = _name(info)
            if not name.endswith("/") and not stat.S_ISDIR(_mode(info)):
                yield Member(name, _chunks(archive, info))


def unpacked_bytes(file: BinaryIO, *, max_entries: int) -> int:
    """Bytes of all files of a zip archive by its directory; `members` gives no more of any.

    Raises:
        ArchiveError: no zip archive, damaged, or too many entries to be read.
    """
    with _opened(file, max_entries=max_entries) as opened:
        return sum(info.file_size for info in opened.infolist())


def _opened(file: BinaryIO, *, max_entries: int) -> zipfile.ZipFile:
    capped = _Capped(file, cap=max(4 * CHUNK_BYTES, max_entries * _DIRECTORY_BYTES))
    with _wrapped(ArchiveError, "The archive is no zip file, or is damaged"):
        return zipfile.ZipFile(capped)


def _chunks(archive: _Archive, info: zipfile.ZipInfo) -> Iterator[bytes]:
    if stat.S_IFMT(_mode(info)) not in (0, stat.S_IFREG):
        raise DatasetError("This is a link or a device.", remedy="Put the file itself into the archive.")
    if info.flag_bits & _ENCRYPTED:
        raise DatasetError("The file is encrypted.", remedy="Pack it without a password.")
    if info.compress_type not in _METHODS:
        raise DatasetError("The file is packed by another method than deflate.", remedy=_REMEDY)
    _check_size(archive, info, info.file_size)
    with _wrapped(DatasetError, "The file is damaged in the archive"):
        source = archive.file.open(info)
    with source:
        count = 0
        while True:
            with _wrapped(DatasetError, "The file is damaged in the archive"):
                chunk = source.read(CHUNK_BYTES)
            count += len(chunk)
            archive.unpacked_bytes += len(chunk)
            _check_size(archive, info, count)
            _check_whole(archive, archive.unpacked_bytes)
            if not chunk:
                break
            yield chunk
        if count != info.file_size:
            raise DatasetError(f"The file has {count:,} bytes, not {info.file_size:,} as it says.", remedy=_REMEDY)


def _check_size(archive: _Archive, info: zipfile.ZipInfo, size: int) -> None:
    if size > archive.max_file_bytes:
        raise DatasetError(f"The file is larger than {archive.max_file_bytes:,} bytes.")
    if size > max(SMALL_BYTES, archive.max_ratio * info.compress_size):
        raise DatasetError(f"The file unpacks to more than {archive.max_ratio:g} times its size.", remedy=_REMEDY)


def _check_whole(archive: _Archive, size: int) -> None:
    if size > archive.max_total_bytes:
        raise ArchiveError(
            f"The archive unpacks to more than {archive.max_total_bytes:,} bytes.", remedy="Split it into smaller ones."
        )
    if size > max(SMALL_BYTES, archive.max_ratio * archive.packed_bytes):
        raise ArchiveError(f"The archive unpacks to more than {archive.max_ratio:g} times its size.", remedy=_REMEDY)


def _check_layout(file: BinaryIO, infos: Sequence[zipfile.ZipInfo], *, end: int) -> None:
    """Refuse entries whose bytes another entry or the directory uses too: they multiply what a bomb unpacks to."""
    for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
        file.seek(info.header_offset)
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != b"PK\3\4":
            raise zipfile.BadZipFile("an entry is missing")
        if info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + info.compress_size > end:
            raise ArchiveError("Entries of the archive overlap.", remedy=_REMEDY)
        end = info.header_offset


def _mode(info: zipfile.ZipInfo) -> int:
    return info.external_attr >> 16


def _name(info: zipfile.ZipInfo) -> str:
    """The name with everything after a NUL. Without the flag for UTF-8 it may be UTF-8 all the same."""
    name = info.orig_filename
    if info.flag_bits & _UTF8:
        return name
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return name


@contextmanager
def _wrapped(kind: type[DatasetError], what: str) -> Iterator[None]:
    """On hostile bytes zipfile raises all of these."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as error:
        raise kind(f"{what} ({error}).", remedy=_REMEDY) from error
