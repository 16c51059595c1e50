"""A Python client that openapi-python-client makes of the API's document: every route and model, without a warning."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.write_openapi import DOCUMENT

SPEC: dict[str, Any] = json.loads(DOCUMENT.read_text("utf-8"))
OPERATIONS = {operation["operationId"]: operation for routes in SPEC["paths"].values() for operation in routes.values()}
SETTINGS = {"post_hooks": [], "package_name_override": "generated_client", "content_type_overrides": {
    "image/webp": "application/octet-stream",
}}  # fmt: skip
"""The generator knows no pictures; docs/api.md shows these settings."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated package."""
    place = tmp_path_factory.mktemp("client")
    generator = pytest.importorskip("openapi_python_client")
    config = generator.config.Config.from_sources(
        generator.config.ConfigFile(**SETTINGS),
        generator.MetaType.NONE,
        document_source=DOCUMENT,
        file_encoding="utf-8",
        overwrite=True,
        output_path=place / "generated_client",
    )
    errors = generator.generate(config=config)
    assert [f"{error.header} {error.detail}" for error in errors] == []
    return place / "generated_client"


@pytest.fixture(scope="module")
def models(package: Path) -> Any:
    sys.path.insert(0, str(package.parent))
    try:
        yield importlib.import_module("generated_client.models")
    finally:
        sys.path.remove(str(package.parent))
        for name in [name for name in sys.modules if name.startswith("generated_client")]:
            del sys.modules[name]


@pytest.mark.slow
def test_every_route_is_there_with_a_typed_result(package: Path) -> None:
    made = {path.stem: path.read_text("utf-8") for path in package.glob("api/*/*.py") if path.stem != "__init__"}
    assert set(made) == set(OPERATIONS)
    untyped = set()
    for name, text in made.items():
        found = re.search(r"def _parse_response\(.*\) -> (.*):", text)
        assert found is not None
        if set(found[1].split(" | ")) <= {"Any", "ErrorBody", "None"}:
            untyped.add(name)
    assert untyped == set()


@pytest.mark.slow
def test_every_model_is_there(models: Any) -> None:
    unions = {name for name, schema in SPEC["components"]["schemas"].items() if "oneOf" in schema}
    assert unions == {"Job", "JobDetail", "WarnedJob"}
    folded = {name.lower() for name in dir(models)}
    assert {name for name in SPEC["components"]["schemas"] if name.lower() not in folded} == unions


def test_the_status_tells_the_result_and_options_are_typed(models: Any) -> None:
    page = OPERATIONS["list_jobs"]["responses"]["200"]["content"]["application/json"]["example"]
    [job] = models.JobPage.from_dict(page).data
    assert isinstance(job, models.CompletedJob)
    assert isinstance(job.result, models.CompletedResult)
    assert isinstance(job.payload, models.JobPayload)
    assert job.result.lora_path == page["data"][0]["result"]["loraPath"]
    config = models.LoraConfigDraft.from_dict({"name": "x", "modelName": "sdxl", "meta": {"minSnrGamma": 5, "mine": 1}})
    assert config.meta.min_snr_gamma == 5
    assert config.to_dict()["meta"] == {"minSnrGamma": 5, "mine": 1}
