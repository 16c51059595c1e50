"""Tenant folders: where a tenant's files lie, and that no path leads out of there."""

from __future__ import annotations

import re
from pathlib import Path

from influencerai.domain.relative_path import OWN_FOLDER, normalized
from influencerai.errors import InfluencerAIError, ValidationError
from influencerai.settings import Settings

_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_tenant(text: str) -> bool:
    """Whether `text` can be a tenant's id, which also names a folder."""
    return bool(_TENANT.fullmatch(text)) and text not in (".", "..")


class TenantFolders:
    """Below one root: in development all tenants share it, in production each has its own."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.root
        self.is_shared = settings.auth == "development"
        """Whether all tenants have one root."""
        self._models_dirs = tuple(str(folder) for folder in settings.models_dirs)

    def root(self, tenant: str) -> Path:
        """The folder that the tenant's paths are relative to."""
        if not is_tenant(tenant):
            raise ValidationError(f"'{tenant[:80]}' cannot be a tenant.")
        return self._root if self.is_shared else self._root / "tenants" / tenant

    def run_dir(self, tenant: str, job_id: str) -> Path:
        """Resumable state and logs of a job."""
        return self.root(tenant) / OWN_FOLDER / "runs" / job_id

    def blobs_dir(self, tenant: str) -> Path:
        """Images that jobs train on, by content."""
        return self.root(tenant) / OWN_FOLDER / "blobs"

    def resolve(self, tenant: str, path: str, *, field: str = "path") -> Path:
        """The place that a path of the tenant names, links followed; it may not exist.

        Raises:
            ValidationError: names `field`; the path, or a link on it, leaves the root.
        """
        root = self.root(tenant)
        try:
            place = (root / normalized(path)).resolve()
            if not place.is_relative_to(root.resolve()):
                raise ValueError("Path must not leave the root by a link")
            if OWN_FOLDER in (part.lower() for part in place.relative_to(root.resolve()).parts):
                raise ValueError(f"Path must not lead into {OWN_FOLDER} by a link")
        except (ValueError, RuntimeError) as error:  # a circle of links is a RuntimeError until Python 3.13
            raise ValidationError(field_errors={field: [str(error)]}) from error
        except OSError as error:
            text = f"Path cannot be used: {error.strerror or error}"
            raise ValidationError(field_errors={field: [text]}) from error
        return place

    def below_root(self, tenant: str, path: str) -> tuple[Path, str]:
        """The tenant's root, and what `resolve` finds as a name below it, which is to be opened without links.

        Raises:
            ValidationError: as `resolve`.
        """
        root = self.root(tenant)
        return root, self.resolve(tenant, path).relative_to(root.resolve()).as_posix()

    def shown(self, text: str, *, tenant: str | None = None) -> str:
        """A message as users may see it: paths begin at the root of the tenant, or of all where none is named."""
        for folder in self._models_dirs:
            text = text.replace(folder, "models")
        own = text if tenant is None else text.replace(f"{self.root(tenant)}/", "")
        return own.replace(f"{self._root}/", "")

    def make(self, tenant: str) -> Path:
        """The tenant's root, made where it is missing.

        Raises:
            InfluencerAIError: it cannot be made.
        """
        root = self.root(tenant)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InfluencerAIError(
                f"The folder {root} cannot be made: {error.strerror}.", remedy="Free space, or choose another root."
            ) from error
        return root
