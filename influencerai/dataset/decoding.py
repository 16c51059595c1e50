"""Decoding: the pixels that a process decodes at a time, the pictures it has decoded, and cancellation."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from influencerai.dataset.image_file import pixel_count
from influencerai.dataset.picture_facts import PictureFacts, picture_facts
from influencerai.errors import DatasetError

_UNCOUNTED_PIXELS = 2**22
"""Pictures of up to 4 megapixels never wait for the budget: they need little memory and end soon."""
_KNOWN_PICTURES = 20_000


class PixelBudget:
    """Limits the decoded pixels that all threads of a process hold. A larger picture is decoded alone."""

    def __init__(self, pixels: int) -> None:
        self._limit = pixels
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for room, and keep it until the end of the block."""
        if pixels <= _UNCOUNTED_PIXELS:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


class KnownPictures:
    """Facts of pictures, or why they cannot be used, by SHA-256 and cap on pixels; the latest ones."""

    def __init__(self, most: int = _KNOWN_PICTURES) -> None:
        self._most = most
        self._found: OrderedDict[tuple[str, int], PictureFacts | DatasetError] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str, *, max_pixels: int) -> PictureFacts | DatasetError | None:
        with self._lock:
            if (found := self._found.get((sha256, max_pixels))) is not None:
                self._found.move_to_end((sha256, max_pixels))
            return found

    def put(self, sha256: str, found: PictureFacts | DatasetError, *, max_pixels: int) -> None:
        with self._lock:
            self._found[sha256, max_pixels] = found
            self._found.move_to_end((sha256, max_pixels))
            while len(self._found) > self._most:
                self._found.popitem(last=False)


class Decoding:
    """One piece of work that decodes pictures, such as an inspection or an upload.

    Args:
        budget: shared with the other work of the process.
        known: shared likewise; each picture is then decoded once per process.
        check: called before each picture; raises what ends the work.
    """

    def __init__(
        self,
        *,
        budget: PixelBudget | None = None,
        known: KnownPictures | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._budget = budget
        self._known = known
        self.check = check

    def facts(self, data: bytes, *, sha256: str, max_pixels: int) -> PictureFacts:
        """The facts of a picture.

        Raises:
            DatasetError: it cannot be decoded, or has more than `max_pixels`.
        """
        self.check()
        found = self._known.get(sha256, max_pixels=max_pixels) if self._known else None
        if found is None:
            found = self._decoded(data, sha256=sha256, max_pixels=max_pixels)
        if isinstance(found, DatasetError):
            raise DatasetError(found.message, remedy=found.remedy)
        return found

    @contextmanager
    def hold(self, data: bytes) -> Iterator[None]:
        """Keep the memory that the decoded picture needs reserved until the end of the block."""
        if self._budget is None:
            yield
            return
        with self._budget.hold(pixel_count(data)):
            self.check()
            yield

    def _decoded(self, data: bytes, *, sha256: str, max_pixels: int) -> PictureFacts | DatasetError:
        found: PictureFacts | DatasetError
        with self.hold(data):
            try:
                found = picture_facts(data, max_pixels=max_pixels)
            except DatasetError as error:
                found = DatasetError(error.message, remedy=error.remedy)
                if isinstance(error.__cause__, MemoryError):  # The next try may have more.
                    return found
        if self._known:
            self._known.put(sha256, found, max_pixels=max_pixels)
        return found
