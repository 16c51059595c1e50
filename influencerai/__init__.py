"""InfluencerAI: train a LoRA of a character from a folder of pictures.

The public names are loaded when they are first used, so that `import influencerai` costs next to nothing:

    from influencerai import LoraConfig, Trainer

    run = Trainer(LoraConfig(name="me", model_name="sd15")).train("data/datasets/me")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from influencerai.client import AsyncInfluencerAIClient, InfluencerAIClient
    from influencerai.domain import LoraConfig, TrainingOptions, TrainingResult, TrainingSpec
    from influencerai.errors import (
        AuthenticationError,
        CheckpointError,
        ConflictError,
        DatasetError,
        DependencyMissingError,
        DivergedError,
        ExportError,
        FencedOffError,
        InfluencerAIError,
        InUseError,
        ModelError,
        NotFoundError,
        OutOfMemoryError,
        PermissionDeniedError,
        QuotaError,
        RefusedError,
        SchemaError,
        StoppedError,
        StoreError,
        TimedOutError,
        TooLargeError,
        TooManyError,
        TrainingError,
        UnreachableError,
        ValidationError,
    )
    from influencerai.progress.view import LiveView
    from influencerai.settings import Settings
    from influencerai.train.runs.comparison import compare, runs
    from influencerai.train.runs.run import Run
    from influencerai.train.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "AsyncInfluencerAIClient",
    "AuthenticationError",
    "CheckpointError",
    "ConflictError",
    "DatasetError",
    "DependencyMissingError",
    "DivergedError",
    "ExportError",
    "FencedOffError",
    "InUseError",
    "InfluencerAIClient",
    "InfluencerAIError",
    "LiveView",
    "LoraConfig",
    "ModelError",
    "NotFoundError",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "QuotaError",
    "RefusedError",
    "Run",
    "SchemaError",
    "Settings",
    "StoppedError",
    "StoreError",
    "TimedOutError",
    "TooLargeError",
    "TooManyError",
    "Trainer",
    "TrainingError",
    "TrainingOptions",
    "TrainingResult",
    "TrainingSpec",
    "UnreachableError",
    "ValidationError",
    "__version__",
    "compare",
    "runs",
]

_HOMES = {
    "AsyncInfluencerAIClient": "influencerai.client",
    "InfluencerAIClient": "influencerai.client",
    "LiveView": "influencerai.progress.view",
    "LoraConfig": "influencerai.domain",
    "Run": "influencerai.train.runs.run",
    "Settings": "influencerai.settings",
    "Trainer": "influencerai.train.trainer",
    "TrainingOptions": "influencerai.domain",
    "TrainingResult": "influencerai.domain",
    "TrainingSpec": "influencerai.domain",
    "compare": "influencerai.train.runs.comparison",
    "runs": "influencerai.train.runs.comparison",
}
"""Where the public names are defined that are not errors."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for.

    Raises:
        DependencyMissingError: when the name belongs to an extra that is not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        value = getattr(import_module(_HOMES.get(name, "influencerai.errors")), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__name__):
            raise
        from influencerai.errors import DependencyMissingError

        raise DependencyMissingError(
            f"{__name__}.{name} needs the package '{error.name}', which is not installed.",
            remedy="Run: pip install 'influencerai[train]'.",
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names alone, for completion."""
    return sorted(__all__)
