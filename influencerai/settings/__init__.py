"""Settings of this machine: folders, limits, device; and the environment of its processes."""

from influencerai.settings.origin import SettingOrigin
from influencerai.settings.process_environment import (
    CLIENT_VARIABLES,
    SECRET_VARIABLES,
    child_environment,
    usable_cores,
)
from influencerai.settings.settings import Settings
from influencerai.settings.sources import ENV_PREFIX, FILE_VARIABLE

__all__ = [
    "CLIENT_VARIABLES",
    "ENV_PREFIX",
    "FILE_VARIABLE",
    "SECRET_VARIABLES",
    "SettingOrigin",
    "Settings",
    "child_environment",
    "usable_cores",
]
