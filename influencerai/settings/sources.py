"""Setting sources: the settings file and the environment variables that name settings."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from influencerai.errors import ValidationError
from influencerai.settings.process_environment import CLIENT_VARIABLES
from influencerai.spelling import nearest
from influencerai.text_files import read_text_file

ENV_PREFIX = "INFLUENCERAI_"
FILE_VARIABLE = "INFLUENCERAI_SETTINGS_FILE"
FILE_NAME = "influencerai.toml"


def absolute(path: Path) -> Path:
    """The path from the root of the file system, links kept.

    Raises:
        ValueError: it begins with the home folder of a user that does not exist.
    """
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"'{path.parts[0]}' is no user's home folder: write the path in full") from error
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENV_PREFIX}{name}".upper()


def find_file(root: str | Path) -> Path | None:
    """The file that the environment names, be it there or not; else the one in the root, if there is one."""
    if named := os.environ.get(FILE_VARIABLE):
        try:
            return absolute(Path(named))
        except ValueError as error:
            errors = {FILE_VARIABLE: [str(error)]}
            raise ValidationError("A setting cannot be used", field_errors=errors) from error
    try:
        file = absolute(Path(root)) / FILE_NAME
        return file if file.is_file() else None
    except (ValueError, TypeError):
        return None  # validation reports the root, with where it came from
    except OSError as error:
        raise ValidationError(
            f"The root {root} cannot be used: {error.strerror}.",
            remedy=f"Name a folder that may be entered with {variable('root')}.",
        ) from error


def read_file(file: Path, *, known: Iterable[str]) -> dict[str, Any]:
    """The file's settings, its relative paths made absolute."""
    try:
        values = tomllib.loads(read_text_file(file).text)
    except RecursionError as error:
        raise ValidationError(f"The settings file {file} cannot be read: it is nested too deeply.") from error
    except (OSError, ValueError) as error:
        raise ValidationError(f"The settings file {file} cannot be read: {error}.") from error
    unknown = {name: nearest(name.lower(), known) for name in values if name not in known}
    if unknown:
        errors = {
            name: ["Unknown setting" + (f", did you mean '{meant}'?" if meant else "")]
            for name, meant in unknown.items()
        }
        raise ValidationError(f"The settings file {file} has unknown settings", field_errors=errors)
    for name in ("root", "models_dir", "cache_dir", "jwt_jwks_file"):
        if isinstance(value := values.get(name), str) and not value.startswith("~"):
            values[name] = file.parent / value
    return values


def check_variables(known: Iterable[str]) -> tuple[str, ...]:
    """Refuse near misses of a variable's name and warn of the rest, which may not be meant for us.

    Kubernetes, for one, sets INFLUENCERAI_SERVICE_HOST in every pod beside a service of that name.
    """
    variables = {*(variable(name) for name in known), FILE_VARIABLE, *CLIENT_VARIABLES}
    warnings = []
    for name in sorted(os.environ):
        if not name.startswith(ENV_PREFIX) or name in variables:
            continue
        short = name.removeprefix(ENV_PREFIX).lower()
        if meant := nearest(short, (*known, "settings_file")):
            text = f"Unknown setting, did you mean {variable(meant)}?"
            raise ValidationError("The environment has an unknown setting", field_errors={name: [text]})
        warnings.append(f"The environment variable {name} is no setting and is ignored.")
    return tuple(warnings)
