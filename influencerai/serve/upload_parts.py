"""Upload parts: the files of a form, received into one temporary file.

A body takes one descriptor and little memory, however many files it has.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

_INLINE_BYTES = 64 * 1024
"""Parts up to this size are written by the event loop, larger ones by threads."""


class Spool:
    """An unnamed file on the disk; parts are appended one after another.

    A thread that writes may outlive its request. Its call ends before `close` does: the number of the file's
    descriptor may be another file's right after.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
        self._lock = threading.Lock()
        self.size = 0

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            with self._lock:
                written = os.pwrite(self._file.fileno(), view, self.size)
            self.size += written
            view = view[written:]

    def read(self, count: int, offset: int) -> bytes:
        with self._lock:
            return os.pread(self._file.fileno(), count, offset)

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Part(io.RawIOBase):
    """One file of a form: written once to the end of its spool, then read at will."""

    _max_size = _INLINE_BYTES
    """As SpooledTemporaryFile has it: by this and `_rolled` Starlette decides whether a call needs a thread."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._start = self._size = self._position = 0

    @property
    def _rolled(self) -> bool:
        return self._size > _INLINE_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if not self._size:
            self._start = self._spool.size
        assert self._start + self._size == self._spool.size, "another part has begun"
        self._spool.append(data)
        self._size += len(data)
        self._position = self._size
        return len(data)

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), self._size - self._position)
        data = self._spool.read(count, self._start + self._position) if count > 0 else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if begin + offset < 0:
            raise ValueError("negative position")
        self._position = begin + offset
        return self._position

    def tell(self) -> int:
        return self._position


class PartsParser(MultiPartParser):
    """Starlette's parser with files in one spool, and a bound on all fields together, which stay in memory.

    Args:
        spool: of the request, which closes it.
    """

    def __init__(self, *arguments: Any, spool: Spool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._spool = spool
        self._field_bytes = 0

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if (file := self._current_part.file) is not None:
            file.file.close()
            self._files_to_close_on_error.clear()
            self._current_part.file = UploadFile(
                Part(self._spool),  # type: ignore[arg-type]
                size=0,
                filename=file.filename,
                headers=Headers(raw=self._current_part.item_headers),
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._field_bytes += end - start
            if self._field_bytes > self.max_part_size:
                raise MultiPartException(f"The fields exceed {self.max_part_size // 1024} KiB together.")
        super().on_part_data(data, start, end)
