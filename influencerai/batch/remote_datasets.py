"""Datasets of a batch on a server: which one has a folder's pictures, and uploads that touch nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

from influencerai.batch.state import BatchState, digest
from influencerai.batch.trainings import Training
from influencerai.client import AsyncInfluencerAIClient
from influencerai.client.upload import local_folder
from influencerai.domain.dataset import Dataset, UploadAnswer
from influencerai.domain.output_path import slug
from influencerai.domain.relative_path import normalized
from influencerai.errors import (
    AuthenticationError,
    ConflictError,
    DatasetError,
    InfluencerAIError,
    PermissionDeniedError,
    StoreError,
    UnreachableError,
)

T = TypeVar("T")
Seen = Mapping[str, tuple[str, str]]
"""SHA-256 and caption of each picture, by its name; a caption that is only the trigger word is none."""
UPLOADED = "data/datasets"
"""Where on the server a folder goes that is outside the root here."""
OF_THE_SERVER = (UnreachableError, StoreError, AuthenticationError, PermissionDeniedError)
"""Errors that every other training would meet too."""
_NOT_UPLOADED = (
    "The folder has changed since it was uploaded, and a dry run leaves the server's pictures as they are: "
    "steps and time are those of the pictures there."
)


class Patience(Protocol):
    """Repeats a request for as long as the server asks to wait."""

    def __call__(self, ask: Callable[[], Awaitable[T]]) -> Awaitable[T]: ...


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A dataset on the server and what was seen in it, or why it cannot be used; without either it was not uploaded."""

    id: str = ""
    seen: tuple[tuple[str, str, str], ...] = ()
    """Path, SHA-256 and caption of each picture."""
    warning: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """A folder that the batch names: its dataset on the server, if there is one, and what is here and there."""

    path: str = ""
    id: str | None = None
    here: Seen = field(default_factory=dict)
    there: Seen = field(default_factory=dict)
    error: str | None = None


class BatchDatasets:
    """The datasets of one check. A dataset is the batch's own where the batch made it and nothing was in its folder.

    Args:
        client: of the tenant.
        patiently: waits as long as the server asks to.
        state: remembers which datasets are the batch's own.
        root: of relative folders here.
        upload: whether pictures go from here to the server.
        dry_run: leave datasets that were there before as they are.
    """

    def __init__(
        self,
        client: AsyncInfluencerAIClient,
        *,
        patiently: Patience,
        state: BatchState,
        root: Path,
        upload: bool,
        dry_run: bool,
    ) -> None:
        self._client = client
        self._patiently = patiently
        self._state = state
        self._root = root
        self._upload = upload
        self._dry_run = dry_run
        self._folders: dict[str, _Folder] = {}
        self._uploaded_from: dict[str, Path] = {}

    async def look(self, trainings: Iterable[Training], known: Sequence[Dataset]) -> bool:
        """Inspect each folder, here and on the server, and change nothing; returns whether every one can be used.

        Args:
            trainings: of the batch.
            known: the tenant's datasets, the oldest first.
        """
        there: dict[str, Dataset] = {}
        for dataset in sorted(known, key=lambda dataset: dataset.id in self._state.dataset_ids):
            there[dataset.path] = dataset  # of several the batch's own, else the newest
        for training in trainings:
            if training.dataset not in self._folders:
                self._folders[training.dataset] = await self._look(training, there)
        return not any(folder.error for folder in self._folders.values())

    async def pictures(self, training: Training, *, may_upload: bool) -> Pictures:
        """The folder's dataset: made known, and uploaded where that is wanted and allowed."""
        folder = self._folders[training.dataset]
        if folder.error:
            return Pictures(error=folder.error)
        try:
            return await self._pictures(training, folder, may_upload=may_upload)
        except OF_THE_SERVER:
            raise
        except InfluencerAIError as error:
            return Pictures(error=self._text(training, error))

    async def _look(self, training: Training, there: Mapping[str, Dataset]) -> _Folder:
        try:
            path = self._path_there(training)
            dataset = there.get(path)
            if not self._upload:
                return _Folder(path=path, id=dataset.id if dataset else None)
            here = await asyncio.to_thread(seen_here, self._root / training.dataset)
            if dataset is None:
                return _Folder(path=path, here=here)
            found = _Folder(path=path, id=dataset.id, here=here, there=await self._there(dataset.id))
            self._refuse_others(found)
        except OF_THE_SERVER:
            raise
        except (InfluencerAIError, ValueError) as error:
            return _Folder(error=self._text(training, error))
        return found

    async def _pictures(self, training: Training, folder: _Folder, *, may_upload: bool) -> Pictures:
        is_new, warning = folder.id is None, None
        if self._upload and not may_upload and (is_new or folder.here != folder.there):
            return Pictures()
        if is_new:
            folder = await self._made(training, folder)
        id = folder.id
        assert id is not None
        if self._upload and folder.here != folder.there:
            if self._dry_run and not is_new:
                seen = tuple((name, *of) for name, of in sorted(folder.here.items()))
                return Pictures(id=id, seen=seen, warning=_NOT_UPLOADED)
            source = self._root / training.dataset
            answer = await self._patiently(lambda: self._client.datasets.upload(id, source, replace=True))
            warning = _skipped(answer)
        report = await self._patiently(lambda: self._client.datasets.report(id, refresh=True))
        if self._upload:
            _refuse_left_over(id, folder.here, seen_there(report))
        fields = ("path", "sha256", "caption")
        found = sorted(tuple(str(image.get(name) or "") for name in fields) for image in _images(report))
        return Pictures(id=id, seen=tuple((path, sha256, caption) for path, sha256, caption in found), warning=warning)

    async def _made(self, training: Training, folder: _Folder) -> _Folder:
        """The folder with a dataset, which is the batch's own if no pictures were there."""
        word = training.config.options.trigger_word
        meta = {"triggerWord": word} if word else {}
        made = await self._patiently(lambda: self._client.datasets.create(path=folder.path, meta=meta))
        self._state.enter(made.tenant_id)
        found = _Folder(path=folder.path, id=made.id, here=folder.here, there=await self._there(made.id))
        if not found.there:
            self._state.own_dataset(made.id)
        elif self._upload:
            self._refuse_others(found)
        return found

    async def _there(self, id: str) -> Seen:
        """What is in the dataset's folder; nothing where there is none."""
        dataset = await self._patiently(lambda: self._client.datasets.get(id))
        if dataset.status == "pending":
            return {}
        return seen_there(await self._patiently(lambda: self._client.datasets.report(id, refresh=True)))

    def _refuse_others(self, folder: _Folder) -> None:
        """Refuse to upload where pictures of others are, or some that the folder here does not have any more.

        Raises:
            ConflictError: they are there.
        """
        assert folder.id is not None
        if folder.here == folder.there:
            return
        if folder.id not in self._state.dataset_ids:
            raise ConflictError(
                f"The server has a dataset at {folder.path} ({folder.id}) that this batch has not filled, with other "
                "pictures or captions than here.",
                remedy="Give the folder here another name, or leave out --upload to train on what is there.",
            )
        _refuse_left_over(folder.id, folder.here, dict.fromkeys(folder.there.keys() - folder.here.keys(), ("", "")))

    def _path_there(self, training: Training) -> str:
        """The dataset's path below the server's root.

        Raises:
            ValueError: it cannot be one, and the folder is not to be uploaded.
            ConflictError: the pictures of another folder go there.
        """
        folder = (self._root / training.dataset).resolve()
        try:
            path = normalized(training.dataset)
        except ValueError:
            if not self._upload:
                raise
            path = f"{UPLOADED}/{slug(folder.name, default='pictures', longest=100)}-{digest(str(folder))[:8]}"
        if self._upload and (other := self._uploaded_from.setdefault(path, folder)) != folder:
            raise ConflictError(f"The pictures would go to {path}, where those of {other} go.")
        return path

    def _text(self, training: Training, error: Exception) -> str:
        text = str(error) if isinstance(error, InfluencerAIError) else f"{error}."
        more = "" if self._upload else " With --upload the folder of this machine goes to the server."
        return f"{training.dataset}: {text}{more}"


def seen_here(folder: Path) -> Seen:
    """The pictures that an upload of the folder takes, by the names that they get.

    Raises:
        ValidationError: there are none.
    """
    from influencerai.dataset import inspect_dataset

    taken = {file.name for files in local_folder(folder).batches for file in files}
    found = [image for image in inspect_dataset(folder, follow_links=True).images if image.path in taken]
    return {_name_there(image.path): _seen(image.sha256, image.caption, image.caption_source) for image in found}


def seen_there(report: Mapping[str, Any]) -> Seen:
    """The same of a server's report."""
    return {
        str(image.get("path")): _seen(image.get("sha256"), image.get("caption"), image.get("captionSource"))
        for image in _images(report)
    }


def _skipped(answer: UploadAnswer) -> str | None:
    """The files that an upload left out, but for hidden ones, and what was probably meant of them."""
    from influencerai.dataset import listed

    names = [file.name for file in answer.skipped if not PurePosixPath(file.name).name.startswith(".")]
    left_out = f"Files that are neither pictures nor captions were not uploaded: {listed(names)}."
    return " ".join([*([left_out] if names else []), *answer.warnings]) or None


def _refuse_left_over(id: str, here: Seen, there: Seen) -> None:
    """Raise ConflictError where the server would train on what the folder does not have."""
    left = []
    for name, (sha256, caption) in sorted(there.items()):
        own = here.get(name)
        if own is None or sha256 != own[0] or caption not in ("", own[1]):
            left.append(name)
    if left:
        from influencerai.dataset import listed

        raise ConflictError(
            f"The dataset {id} on the server has pictures or captions that the folder here does not have: "
            f"{listed(left)}.",
            remedy=f"Put them back here, or delete the dataset (DELETE /datasets/{id}): then the same command uploads "
            "the folder anew.",
        )


def _images(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [image for image in report.get("images", ()) if isinstance(image, dict)]


def _seen(sha256: str | None, caption: str | None, source: str | None) -> tuple[str, str]:
    return sha256 or "", "" if source == "trigger word" else caption or ""


def _name_there(name: str) -> str:
    """What an upload calls the file; one that it refuses keeps its name."""
    from influencerai.dataset.uploads.received_names import received_path, storable_path

    try:
        return storable_path(received_path(name))
    except DatasetError:
        return name
