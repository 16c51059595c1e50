"""Dataset folders: where a tenant's pictures lie, opened so that no link that is made meanwhile leads elsewhere."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from influencerai.errors import DatasetError, InfluencerAIError
from influencerai.files.beneath import pinned, remove_folder
from influencerai.files.tenant_folders import TenantFolders

_NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class MissingFolderError(DatasetError):
    """There is no folder of this path."""


class DatasetFolders:
    """Folders below the root of each tenant. Methods block on the disk."""

    def __init__(self, folders: TenantFolders) -> None:
        self._folders = folders

    def check(self, tenant: str, path: str) -> None:
        """Refuse a path that leaves the tenant's root.

        Raises:
            ValidationError: it leaves the root, itself or by a link.
        """
        self._folders.resolve(tenant, path)

    @contextmanager
    def opened(self, tenant: str, path: str, *, make: bool = False) -> Iterator[Path]:
        """The folder, which stays the same until the end of the block, whoever exchanges folders for links.

        With `make` it is made where it is missing, and removed again where it is empty at the end.

        Raises:
            ValidationError: the path leaves the tenant's root.
            MissingFolderError: there is no such folder.
            InfluencerAIError: the file system refuses.
        """
        place, root = self._folders.resolve(tenant, path), self._folders.root(tenant).resolve()
        if make:
            self._folders.make(tenant)
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(pinned(root, place.relative_to(root).as_posix(), make=make))
            except OSError as error:
                if error.errno in _NO_FOLDER:
                    remedy = "Remove the file or link of this name." if make else "Make it, or upload images."
                    raise MissingFolderError(f"There is no folder {path}.", remedy=remedy) from error
                raise InfluencerAIError(
                    f"The folder {path} cannot be opened: {error.strerror}.",
                    remedy="Let the server's user read and write it.",
                ) from error
            yield folder

    def remove_empty(self, tenant: str, path: str) -> None:
        """Remove the folder where it is empty."""
        place, root = self._folders.resolve(tenant, path), self._folders.root(tenant).resolve()
        with suppress(OSError):
            remove_folder(root, place.relative_to(root).as_posix())
