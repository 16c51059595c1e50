"""Run copy: states, log and pictures of a run under second names, for the job that goes on from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from influencerai.domain.relative_path import OWN_FOLDER
from influencerai.errors import InfluencerAIError
from influencerai.files import beneath

_APPENDED = "history.jsonl"
"""The one file of a run that grows: it is copied, where the others, written once, are linked."""
_DATASET = "dataset"


class RunCopy:
    """A copy of one run, made before a transaction and checked in it. Methods block on the disk.

    Args:
        root: of the tenant whose runs both are.
        source: id of the run.
        target: id of the new run, which nobody uses yet.
    """

    def __init__(self, root: Path, *, source: str, target: str) -> None:
        self._root = root
        self._source_id = source
        self._source, self._target = (f"{OWN_FOLDER}/runs/{id}" for id in (source, target))
        self._states: list[str] = []
        self._has_pictures = False

    @property
    def has_state(self) -> bool:
        """Whether the run had a state, so that the new job goes on from it."""
        return bool(self._states)

    def make(self, check: Callable[[], None]) -> None:
        """Copy; what somebody removes meanwhile is left out. `check` is called between files, and may raise.

        Raises:
            InfluencerAIError: a file cannot be linked.
        """
        try:
            for name in self._files():
                check()
                with suppress(FileNotFoundError):
                    self._take(name)
            check()
        except OSError as error:
            self.remove()
            text = f"The checkpoint of {self._source_id} cannot be taken over: {error.strerror}."
            raise InfluencerAIError(text) from error
        except BaseException:
            self.remove()
            raise

    def is_current(self) -> bool:
        """Whether everything is still where it was copied from; a few questions to the file system."""
        names = [*self._states, *([_DATASET] if self._has_pictures else [])]
        with suppress(OSError):
            return all(beneath.status(self._root, f"{self._source}/{name}") for name in names)
        return False

    def remove(self) -> None:
        """Remove the new run."""
        with suppress(OSError):
            beneath.remove_tree(self._root, self._target, ignore_errors=True)

    def _files(self) -> Iterator[str]:
        """Names in the run's folder of what is copied."""
        with suppress(FileNotFoundError):
            names = [entry.name for entry in beneath.entries(self._root, self._source)]
            self._states = [name for name in names if name.startswith("state-") and name.endswith(".safetensors")]
            self._has_pictures = _DATASET in names
            yield from self._states
            if _APPENDED in names:
                yield _APPENDED
            if self._has_pictures:
                yield from self._below(_DATASET)

    def _below(self, folder: str) -> Iterator[str]:
        for entry in beneath.entries(self._root, f"{self._source}/{folder}"):
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(f"{folder}/{entry.name}")
            else:
                yield f"{folder}/{entry.name}"

    def _take(self, name: str) -> None:
        if name != _APPENDED:
            beneath.link(self._root, f"{self._source}/{name}", f"{self._target}/{name}")
            return
        with (
            os.fdopen(beneath.open_file(self._root, f"{self._source}/{name}"), "rb") as source,
            beneath.pinned(self._root, self._target, make=True) as target,
            (target / name).open("xb") as copy,
        ):
            shutil.copyfileobj(source, copy)
