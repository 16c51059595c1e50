"""Download: a job's files, whole and proven by their hashes, in the folder that was named and nowhere else."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

import httpx2

from influencerai.client.answers import error_of
from influencerai.client.connection import Connection, segment
from influencerai.domain.job_log import JobArtifact
from influencerai.errors import ConflictError, InfluencerAIError

_PART = ".influencerai-{}.part"
_FIRST_PAUSE = 0.2
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\" + (':*?"<>|]' if os.name == "nt" else "]"))
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class Download:
    """One file of a job on its way into a folder.

    It grows under a name that its hash gives, so that a later call goes on where this one was cut off, and gets its
    own name when its bytes are the ones that were announced.

    Raises:
        InfluencerAIError: the server gives it a name that no file in the folder could safely have, or no hash.
    """

    def __init__(self, connection: Connection, job_id: str, artifact: JobArtifact, *, folder: Path) -> None:
        self._connection = connection
        self._artifact = artifact
        self._path = f"/jobs/{segment(job_id)}/artifacts/{segment(checked_name(artifact.name))}"
        self._target = folder / artifact.name
        if not _SHA256.fullmatch(artifact.sha256):
            raise InfluencerAIError(f"The server names no SHA-256 of its file {artifact.name!a}.")
        self._part = folder / _PART.format(artifact.sha256)

    async def run(self, *, replace: bool) -> Path:
        """Where the file lies when it is there.

        Raises:
            ConflictError: another file of that name is there, and not to be replaced.
            UnreachableError: the server was lost, and did not come back.
            InfluencerAIError: what arrives is again and again not what was announced, or the disk refuses.
        """
        try:
            return await self._run(replace=replace)
        except OSError as error:
            raise InfluencerAIError(
                f"{self._target} cannot be written: {error.strerror or error}.",
                remedy="Free space on that disk, or name a folder that you may write to.",
            ) from error

    async def _run(self, *, replace: bool) -> Path:
        if await self._is_there(self._target):
            return self._target
        if (self._target.is_symlink() or self._target.exists()) and not replace:
            raise ConflictError(
                f"{self._target} is there with other content.", remedy="Name another folder, or have it replaced."
            )
        for _ in range(2):
            await self._fetch()
            if await self._is_there(self._part):
                self._part.replace(self._target)
                return self._target
            self._part.unlink(missing_ok=True)
        raise InfluencerAIError(f"The file {self._artifact.name} arrives damaged.", remedy="Try again later.")

    async def _fetch(self) -> None:
        """All bytes that are missing, by as many requests as that takes."""
        fruitless = 0
        while (begin := self._size()) < self._artifact.size or not self._part.exists():
            try:
                await self._append(begin)
            except httpx2.RequestError as error:
                fruitless = 0 if self._size() > begin else fruitless + 1
                if fruitless > self._connection.retries:
                    raise self._connection.unreachable(error) from error
                await self._connection.transport.sleep(_FIRST_PAUSE * 2**fruitless)
            else:
                if self._size() < self._artifact.size:
                    return  # which is another file than the one that was announced

    async def _append(self, begin: int) -> None:
        headers = {"accept-encoding": "identity"}
        if begin:
            headers |= {"range": f"bytes={begin}-", "if-range": f'"{self._artifact.sha256}"'}
        async with self._connection.open(self._path, headers=headers, accepted=416) as response:
            goes_on = response.headers.get("content-range", "").startswith(f"bytes {begin}-")
            if response.status_code == 416:
                self._part.unlink()
                return
            if response.status_code not in (200, 206) or (response.status_code == 206 and not goes_on):
                raise error_of(response)
            flags = os.O_WRONLY | os.O_CREAT | _NOFOLLOW | getattr(os, "O_BINARY", 0)
            flags |= os.O_APPEND if response.status_code == 206 else os.O_TRUNC
            left = self._artifact.size - (begin if response.status_code == 206 else 0)
            with os.fdopen(os.open(self._part, flags, 0o666), "wb") as file:
                async for chunk in self._connection.transport.chunks(response):
                    left -= file.write(chunk)
                    if left < 0:
                        break  # more than was announced: the hash will tell
                file.flush()
                await self._connection.transport.aside(lambda: os.fsync(file.fileno()))

    async def _is_there(self, path: Path) -> bool:
        """Whether a file has the announced bytes; a link has none."""

        def look() -> bool:
            if path.is_symlink() or not path.is_file() or path.stat().st_size != self._artifact.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self._artifact.sha256

        return await self._connection.transport.aside(look)

    def _size(self) -> int:
        if self._part.is_symlink():
            self._part.unlink()
        return self._part.stat().st_size if self._part.is_file() else 0


async def download(
    connection: Connection,
    job_id: str,
    artifacts: Collection[JobArtifact],
    folder: Path,
    *,
    replace: bool,
) -> tuple[Path, ...]:
    """Fetch the files one after the other; raises as `Download`. All names are checked before the first is fetched."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfluencerAIError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    downloads = [Download(connection, job_id, artifact, folder=folder) for artifact in artifacts]
    return tuple([await each.run(replace=replace) for each in downloads])


def checked_name(name: str) -> str:
    """The name, where it can be that of a file in a folder on any system.

    Raises:
        InfluencerAIError: it leads elsewhere, is hidden, or is none.
    """
    is_bad = not name or name.startswith(".") or name.endswith((".", " ")) or len(name.encode("utf-8", "replace")) > 255
    if is_bad or _FORBIDDEN.search(name):
        raise InfluencerAIError(f"The server names a file {name[:300]!a}, which is no safe name for one.")
    return name
