"""The Hugging Face hub and its cache on this machine; its client is imported on first use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from influencerai.basemodel.components import COMPONENTS
from influencerai.basemodel.diffusers_folder import VARIANTS
from influencerai.basemodel.search import WEIGHTS, by_hand
from influencerai.errors import DependencyMissingError, ModelError

_TIMEOUT = 5.0
"""Seconds in which a hub that can be reached answers."""
_FILE_ENDINGS = (".json", ".txt")


def find_cached(hub_id: str) -> Path | None:
    """The snapshot of a hub model in the Hugging Face cache, perhaps incomplete, or None."""
    try:
        import huggingface_hub
    except ModuleNotFoundError:  # it comes with the extra that trains, and fills the cache
        return None
    found = huggingface_hub.try_to_load_from_cache(hub_id, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def download(
    hub_id: str,
    *,
    models_dirs: Sequence[Path],
    endpoint: str | None = None,
    into: Path | None = None,
) -> Path:
    """Download what is needed of a hub model (configurations, tokenizers, .safetensors) into the cache, or `into`.

    Raises:
        ModelError: there is no network, or the hub has no such diffusers model; the remedy describes a manual download.
        DependencyMissingError: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        raise DependencyMissingError(
            f"{hub_id} cannot be downloaded without the package huggingface_hub, which is not installed.",
            remedy="Run: pip install 'influencerai[train]'.",
        ) from error
    utils: Any = huggingface_hub.utils  # whose names mypy takes for private
    try:
        # The hub's client tries again for half a minute where there is no network.
        api = huggingface_hub.HfApi(endpoint=endpoint)
        utils.get_session().head(f"{api.endpoint}/api/models/{hub_id}", timeout=_TIMEOUT)
        files = api.list_repo_files(hub_id)
        if "model_index.json" not in files:
            raise ModelError(
                f"{hub_id} is no diffusers model: its repository holds no model_index.json.",
                remedy=_single_file_remedy(files),
            )
        folder = huggingface_hub.snapshot_download(
            hub_id, allow_patterns=needed_files(files), endpoint=api.endpoint, local_dir=into
        )
    except ModelError:
        raise
    # The hub's client raises errors of its own, of its HTTP library and of the system, without a common base.
    except Exception as error:
        raise ModelError(
            f"{hub_id} could not be downloaded: {_reason(error)}.", remedy=by_hand(hub_id, models_dirs)
        ) from error
    return Path(folder)


def _reason(error: Exception) -> str:
    """The cause in a user's words. Errors are told by the names of their classes, whichever HTTP library is below."""
    names = {base.__name__ for base in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return "the hub's client is offline (HF_HUB_OFFLINE)"
    if "GatedRepoError" in names:
        return "its owner asks for a login: accept its licence on the hub's site, then run `hf auth login`"
    if "RepositoryNotFoundError" in names:
        return "the hub has no model of that name, or it is private"
    if names & {"TransportError", "ConnectionError", "TimeoutError", "gaierror"}:
        return "no network, or the hub does not answer"
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


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


def _single_file_remedy(files: Iterable[str]) -> str:
    singles = [name for name in files if name.endswith(WEIGHTS) and "/" not in name]
    if singles:
        return f"Download one of its single files by hand and give its path: {', '.join(singles[:3])}."
    return "Choose an SD1.5 or SDXL model."
