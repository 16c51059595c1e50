"""Download: a job's files, complete and checked against their hashes, in the given folder and nowhere else."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

import httpx2

from influencerai.client.answers import error_of
from influencerai.client.connection import Connection, segment
from influencerai.client.part import claimed_part
from influencerai.domain.job_log import JobArtifact
from influencerai.errors import ConflictError, InfluencerAIError
from influencerai.files import file_system

_FIRST_PAUSE = 0.2
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\" + (':*?"<>|]' if os.name == "nt" else "]"))
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class Download:
    """One file of a job on its way into a folder.

    It grows in a part of its own, where a later call continues when this one is interrupted, and gets its name when its
    bytes are the ones that were announced.

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

    async def run(self, *, replace: bool) -> Path:
        """Download the file and return its path.

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
        if self._is_taken():  # asked first, since another download may place the same file at any time
            if await self._is_there(self._target):
                return self._target
            if not replace:
                raise self._conflict()
        with claimed_part(self._target.parent, self._artifact.sha256) as part:
            for _ in range(2):
                await self._fetch(part)
                if await self._is_there(part):
                    await self._name(part, replace=replace)
                    return self._target
                _empty(part)
        raise InfluencerAIError(f"The file {self._artifact.name} arrives damaged.", remedy="Try again later.")

    async def _name(self, part: Path, *, replace: bool) -> None:
        """Give the whole file its name, which another file may have got meanwhile."""
        if replace:
            part.replace(self._target)
            return
        try:
            os.link(part, self._target)
        except OSError:
            if not self._is_taken():  # so there are no links here
                part.replace(self._target)
                return
            if not await self._is_there(self._target):
                raise self._conflict() from None
        part.unlink()

    async def _fetch(self, part: Path) -> None:
        """All bytes that are missing, by as many requests as that takes."""
        fruitless = 0
        while (begin := _size(part)) < self._artifact.size:
            try:
                await self._append(part, begin)
            except httpx2.RequestError as error:
                fruitless = 0 if _size(part) > begin else fruitless + 1
                if fruitless > self._connection.retries:
                    raise self._connection.unreachable(error) from error
                await self._connection.transport.sleep(_FIRST_PAUSE * 2**fruitless)
            else:
                if _size(part) < self._artifact.size:
                    return  # which is another file than the one that was announced

    async def _append(self, part: Path, begin: int) -> None:
        headers = {"accept-encoding": "identity"}
        if begin:
            headers |= {"range": f"bytes={begin}-", "if-range": f'"{self._artifact.sha256}"'}
        async with self._connection.open(self._path, headers=headers, accepted=416) as response:
            goes_on = response.headers.get("content-range", "").startswith(f"bytes {begin}-")
            if response.status_code == 416:
                _empty(part)
                return
            if response.status_code not in (200, 206) or (response.status_code == 206 and not goes_on):
                raise error_of(response)
            flags = os.O_WRONLY | os.O_CREAT | _NOFOLLOW | getattr(os, "O_BINARY", 0)
            flags |= os.O_APPEND if response.status_code == 206 else os.O_TRUNC
            left = self._artifact.size - (begin if response.status_code == 206 else 0)
            with os.fdopen(os.open(part, flags, 0o666), "wb") as file:
                async for chunk in self._connection.transport.chunks(response):
                    left -= file.write(chunk)
                    if left < 0:
                        break  # more than was announced: the hash will tell
                file.flush()
                await self._connection.transport.aside(lambda: file_system.sync(file.fileno()))

    async def _is_there(self, path: Path) -> bool:
        """Whether a file has the announced bytes; a link has none."""

        def look() -> bool:
            if path.is_symlink() or not path.is_file() or path.stat().st_size != self._artifact.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self._artifact.sha256

        return await self._connection.transport.aside(look)

    def _is_taken(self) -> bool:
        return self._target.is_symlink() or self._target.exists()

    def _conflict(self) -> ConflictError:
        return ConflictError(
            f"{self._target} is there with other content.", remedy="Name another folder, or have it replaced."
        )


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


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _empty(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | _NOFOLLOW))


def checked_name(name: str) -> str:
    """The name, where it can be that of a file in a folder on any system.

    Raises:
        InfluencerAIError: it leads elsewhere, is hidden, or is none.
    """
    is_bad = not name or name.startswith(".") or name.endswith((".", " ")) or len(name.encode("utf-8", "replace")) > 255
    if is_bad or _FORBIDDEN.search(name):
        raise InfluencerAIError(f"The server names a file {name[:300]!a}, which is no safe name for one.")
    return name
