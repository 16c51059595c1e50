"""Base models: which of them this server has, and what is wrong with the one that a configuration names."""

from __future__ import annotations

import asyncio
import time

from influencerai.basemodel.model_entries import model_entries, problem_with
from influencerai.domain.base_model_entry import BaseModelEntry
from influencerai.settings import Settings

_SECONDS = 10.0
"""An inventory is kept for so long: recognising large single files takes seconds."""


class BaseModelService:
    """The models folders of this server; all tenants see the same ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._found: tuple[BaseModelEntry, ...] = ()
        self._until = 0.0

    async def list(self) -> tuple[BaseModelEntry, ...]:
        """The aliases, and each model in the models folders; of requests at the same time one looks."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._found = await asyncio.to_thread(model_entries, self._settings.models_dirs)
                self._until = time.monotonic() + _SECONDS
            return self._found

    async def warnings(self, model_name: str) -> tuple[str, ...]:
        """Warnings about a model that jobs will fail on, or wait for."""
        found = await asyncio.to_thread(
            problem_with,
            model_name,
            models_dirs=self._settings.models_dirs,
            allow_download=self._settings.serves_downloads,
        )
        return () if found is None else (found,)
