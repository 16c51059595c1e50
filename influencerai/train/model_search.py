"""Where a base model may lie: aliases, models folders, the Hugging Face cache, and the hub itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.utils
from huggingface_hub.errors import HFValidationError

from influencerai.errors import ModelError
from influencerai.train.diffusers_folder import VARIANTS
from influencerai.train.model_components import COMPONENTS
from influencerai.train.weight_file import PICKLE_SUFFIXES, pickle_error

WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Alias:
    """A short name of a well-known model: its hub id, and the names that people give its files."""

    hub_id: str
    places: tuple[str, ...]


ALIASES = {
    "sd15": Alias(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        (
            "sd15",
            "sd15.safetensors",
            "v1-5-pruned-emaonly.safetensors",
            "v1-5-pruned.safetensors",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "runwayml/stable-diffusion-v1-5",
        ),
    ),
    "sdxl": Alias(
        "stabilityai/stable-diffusion-xl-base-1.0",
        (
            "sdxl",
            "sdxl.safetensors",
            "sd_xl_base_1.0.safetensors",
            "stabilityai/stable-diffusion-xl-base-1.0",
            "stabilityai/stable-diffusion-xl-base-1.0/sd_xl_base_1.0.safetensors",
        ),
    ),
}

_KNOWN_NAMES = (*ALIASES, "influencerai/tiny-avatars")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_UTILS: Any = huggingface_hub.utils  # whose names mypy takes for private
_HUB_TIMEOUT = 5.0
"""Seconds in which a hub that can be reached answers."""
_FILE_ENDINGS = (".json", ".txt")


def hub_id_of(name: str) -> str | None:
    """The hub id that an alias stands for, or `name` where it has the form of one."""
    if name in ALIASES:
        return ALIASES[name].hub_id
    if not _HUB_ID.fullmatch(name) or name.endswith((WEIGHTS, *PICKLE_SUFFIXES)):
        return None
    try:
        _HUB_UTILS.validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def candidates(name: str, models_dirs: Sequence[Path], *, as_path: bool = True) -> Iterator[Path]:
    """Where `name` is looked for, in order: the models folders, then, with `as_path`, `name` as a path.

    Without `as_path` nothing outside of the models folders is: only plain names and hub ids have candidates.
    """
    if name in ALIASES:
        yield from (folder / place for folder in models_dirs for place in ALIASES[name].places)
        return
    if not as_path and not hub_id_of(name) and (Path(name).name != name or name == ".."):
        return
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # `~somebody`, who has no home here
        path = Path(name)
    if not path.is_absolute():
        for folder in models_dirs:
            yield folder / path
            if not name.endswith(WEIGHTS):
                yield folder / (name + WEIGHTS)
    if as_path:
        yield path


def find_local(name: str, models_dirs: Sequence[Path], *, as_path: bool = True) -> Path | None:
    """The folder or file that `name` stands for, or None.

    Raises:
        ModelError: only a pickle of that name is there.
    """
    looked = list(candidates(name, models_dirs, as_path=as_path))
    for path in looked:
        if _exists(path):
            return path
    for path in looked:
        for suffix in sorted(PICKLE_SUFFIXES):
            if _exists(pickle := path.parent / (path.name.removesuffix(WEIGHTS) + suffix)):
                raise pickle_error(pickle)
    return None


def find_cached(hub_id: str) -> Path | None:
    """The snapshot of a hub model in the Hugging Face cache, perhaps incomplete, or None."""
    found = huggingface_hub.try_to_load_from_cache(hub_id, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def download(
    hub_id: str,
    *,
    models_dirs: Sequence[Path],
    endpoint: str | None = None,
) -> Path:
    """Download what is needed of a hub model (configurations, tokenizers, .safetensors) into the cache.

    Raises:
        ModelError: the hub cannot be reached or has no such diffusers model; says how to get it by hand.
    """
    try:
        # The hub's client tries again for half a minute where there is no network.
        api = huggingface_hub.HfApi(endpoint=endpoint)
        _HUB_UTILS.get_session().head(f"{api.endpoint}/api/models/{hub_id}", timeout=_HUB_TIMEOUT)
        files = api.list_repo_files(hub_id)
        if "model_index.json" not in files:
            raise ModelError(
                f"{hub_id} is no diffusers model: its repository holds no model_index.json.",
                remedy=_single_file_remedy(files),
            )
        folder = huggingface_hub.snapshot_download(hub_id, allow_patterns=needed_files(files), endpoint=endpoint)
    except ModelError:
        raise
    # The hub's client raises errors of its own, of its HTTP library and of the system, without a common base.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{hub_id} could not be downloaded: {reason or type(error).__name__}.",
            remedy=by_hand(hub_id, models_dirs),
        ) from error
    return Path(folder)


def needed_files(files: Iterable[str]) -> list[str]:
    """The files of a hub model that a training needs: of the weights one variant, the plain one first."""
    names = sorted(files)
    wanted = ["model_index.json"] if "model_index.json" in names else []
    for component in sorted({*COMPONENTS["sdxl"], "scheduler"}):
        inside = [name for name in names if name.startswith(component + "/") and name.count("/") == 1]
        indexes = (
            ".safetensors.index.json",
            *(f".safetensors.index.{variant}.json" for variant in VARIANTS if variant),
        )
        wanted += [name for name in inside if name.endswith(_FILE_ENDINGS) and not name.endswith(indexes)]
        for variant in VARIANTS:
            infix = rf"\.{variant}" if variant else ""
            pattern = re.compile(
                rf"[^/]+/(diffusion_pytorch_model|model)({infix}(-\d+-of-\d+)?|-\d+-of-\d+{infix})\.safetensors"
                rf"|[^/]+/(diffusion_pytorch_model|model)\.safetensors\.index{infix}\.json"
            )
            weights = [name for name in inside if pattern.fullmatch(name)]
            if weights:
                wanted += weights
                break
    return wanted


def by_hand(hub_id: str | None, models_dirs: Sequence[Path]) -> str:
    """How to bring a model here without a download by us."""
    folder = models_dirs[0] if models_dirs else Path("models")
    place = f"{folder / hub_id} (the diffusers folder: model_index.json and its folders)" if hub_id else f"{folder}"
    return (
        f"Copy the model to {place}, or give the path of a .safetensors file. "
        f"Names that are known: {', '.join(_KNOWN_NAMES)} (which comes with the package)."
    )


def _exists(path: Path) -> bool:
    """Whether a file or a folder with something in it is there; a name that no file can have is not."""
    try:
        return path.is_file() or (path.is_dir() and any(path.iterdir()))
    except OSError:
        return False


def _single_file_remedy(files: Iterable[str]) -> str:
    singles = [name for name in files if name.endswith(WEIGHTS) and "/" not in name]
    if singles:
        return f"Download one of its single files by hand and give its path: {', '.join(singles[:3])}."
    return "Choose an SD1.5 or SDXL model."
