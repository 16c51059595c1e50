"""TenantView: paths and texts of a job process as its tenant may read them."""

from __future__ import annotations

from pathlib import Path

from influencerai.domain import CheckpointEvent, Event, SampleEvent, WarningEvent
from influencerai.job_process.messages import TrainingRequest
from influencerai.job_process.secret_values import without_secrets


class TenantView:
    """Makes paths relative to the tenant's root, and removes folders of this machine and secrets from texts."""

    def __init__(self, request: TrainingRequest) -> None:
        self._root = request.root
        shown = {
            Path.home(): "",
            request.cache_dir: "",
            **dict.fromkeys(request.models_dirs, "models/"),
            request.root: "",
        }
        folders = {folder.resolve(): text for folder, text in shown.items()} | shown
        self._folders = sorted(folders.items(), key=lambda item: len(str(item[0])), reverse=True)
        """Folders of this machine, the longest path first, and their replacements."""

    def path(self, path: Path) -> str:
        """The path relative to the root."""
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else str(path)

    def text(self, text: str) -> str:
        """The text without paths of this machine and without secrets of this process."""
        text = without_secrets(text)
        for folder, replacement in self._folders:
            text = text.replace(f"{folder}/", replacement)
        return text

    def event(self, event: Event) -> Event:
        """The event with relative paths."""
        match event:
            case CheckpointEvent():
                return event.model_copy(update={"path": self.path(Path(event.path))})
            case SampleEvent():
                return event.model_copy(update={"paths": tuple(self.path(Path(path)) for path in event.paths)})
            case WarningEvent():
                return event.model_copy(update={"message": self.text(event.message)})
        return event
