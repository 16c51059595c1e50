"""Packages of the extras: found without importing them, so that a missing one is reported at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from influencerai.errors import DependencyMissingError

TRAIN_PACKAGES = {
    "accelerate": "accelerate",
    "bitsandbytes": "bitsandbytes",
    "diffusers": "diffusers",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "peft": "peft",
    "pytorch-optimizer": "pytorch_optimizer",
    "safetensors": "safetensors",
    "torch": "torch",
    "transformers": "transformers",
}
"""Distributions of the train extra with the modules that they bring."""
SERVE_PACKAGES = {
    "aiosqlite": "aiosqlite",
    "alembic": "alembic",
    "fastapi": "fastapi",
    "fastapi-swagger": "fastapi_swagger",
    "limits": "limits",
    "prometheus-client": "prometheus_client",
    "pyjwt": "jwt",
    "python-multipart": "python_multipart",
    "ray": "ray",
    "sqlalchemy": "sqlalchemy",
    "structlog": "structlog",
    "uvicorn": "uvicorn",
}
"""Distributions of the serve extra with the modules that they bring."""


def check_train_packages(purpose: str = "This command") -> None:
    """Refuse to continue without the train extra.

    Raises:
        DependencyMissingError: names the first package that is missing, and how to install it.
    """
    if missing := missing_packages(TRAIN_PACKAGES.values()):
        raise DependencyMissingError(
            f"{purpose} needs the package '{missing[0]}', which is not installed.",
            remedy="Run: pip install 'influencerai[train]'.",
        )


def missing_packages(modules: Iterable[str]) -> list[str]:
    """The modules that no installed package brings."""
    return [module for module in modules if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
