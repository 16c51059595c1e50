"""Process environment: the variables that a child process gets, and the cores that this process may use."""

from __future__ import annotations

import os

CLIENT_VARIABLES = frozenset({"INFLUENCERAI_SERVER", "INFLUENCERAI_TENANT", "INFLUENCERAI_API_KEY"})
"""Variables of the commands that call a server; they are no settings of this machine."""
SECRET_VARIABLES = frozenset({"INFLUENCERAI_DATABASE_URL", "INFLUENCERAI_JWT_SECRET", "INFLUENCERAI_API_KEY"})
"""Settings and a client's key that no other process needs from the environment."""
_SERVICES_VARIABLES = frozenset({"PGPASSWORD", "PGPASSFILE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"})
"""Credentials by which a process reaches the database and the cluster."""


def child_environment(*, reaches_services: bool) -> dict[str, str]:
    """This process's environment for another one, which gets its settings by other means, without secrets.

    Args:
        reaches_services: whether the other process connects to the database or the cluster itself.
    """
    left_out = SECRET_VARIABLES if reaches_services else SECRET_VARIABLES | _SERVICES_VARIABLES
    return {name: value for name, value in os.environ.items() if name not in left_out}


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
