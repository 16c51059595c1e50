"""What configurations can name: base models, of which absent ones are warned of early, and presets."""

from __future__ import annotations

import pytest

from influencerai.domain import LoraConfig
from influencerai.domain.presets import PRESETS
from tests.serve.running import Api

pytestmark = pytest.mark.anyio
TINY = "influencerai/tiny-avatars"


async def test_models_lists_what_is_there_and_the_aliases_that_are_not(api: Api) -> None:
    found = {entry["name"]: entry for entry in (await api.get("/models")).json()["data"]}
    assert list(found)[:2] == ["sd15", "sdxl"]
    tiny, absent = found[TINY], found["sdxl"]
    assert (tiny["available"], tiny["family"], tiny["layout"], tiny["path"]) == (
        True, "sd15", "diffusers", f"models/{TINY}",
    )  # fmt: skip
    assert tiny["size"] > 10**6
    assert (absent["available"], absent["family"]) == (False, None)
    assert "models/stabilityai/stable-diffusion-xl-base-1.0" in absent["remedy"]


async def test_models_names_what_is_wrong_with_one_without_a_place_of_this_machine(api: Api) -> None:
    models = api.service.settings.models_dir
    models.mkdir(parents=True)
    (models / "torn.safetensors").write_bytes(b"none")
    found = {entry["name"]: entry for entry in (await api.get("/models")).json()["data"]}
    assert not found["torn"]["available"]
    assert "models/torn.safetensors" in found["torn"]["problem"]
    assert str(api.root) not in (await api.get("/models")).text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/passwd", "is a path"),
        ("../../models/x", "is a path"),
        ("sdxl", "is not on this server"),
        ("nobody/knows-this", "models/nobody/knows-this"),
        ("plain", "is not on this server"),
    ],
)
async def test_a_base_model_that_no_job_could_use_is_warned_of(api: Api, name: str, words: str) -> None:
    api.service.settings.__dict__["allow_downloads"] = False
    config = await api.config(modelName=name)
    assert any(words in text for text in config["warnings"])
    changed = (await api.patch(f"/lora-configs/{config['id']}", {"epochs": 2})).json()
    assert any(words in text for text in changed["warnings"])
    job = await api.job(loraConfigId=config["id"])
    assert any(words in text for text in job["warnings"])


async def test_a_base_model_that_is_there_is_not_warned_of(api: Api) -> None:
    assert (await api.config(modelName=TINY))["warnings"] == []


async def test_presets_are_configurations_to_start_from(api: Api) -> None:
    found = (await api.get("/presets")).json()["data"]
    assert [preset["name"] for preset in found] == list(PRESETS)
    for preset in found:
        fields = {name: value for name, value in preset.items() if name not in ("name", "description")}
        LoraConfig.parse({"name": "x", "modelName": TINY, **fields})


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_browser_is_led_to_the_page_of_the_api(api: Api, path: str) -> None:
    browser = await api.client.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (browser.status_code, browser.headers["location"]) == (307, "/api")
    program = await api.client.get(path, headers={"accept": "*/*"})
    assert (program.status_code, program.json()["code"]) == (401, "unauthorized")
    assert "x-tenant-id" in program.json()["remedy"]


async def test_the_document_is_found_under_its_usual_name(api: Api) -> None:
    answer = await api.client.get("/openapi.json", follow_redirects=True)
    assert answer.json()["openapi"].startswith("3.1")
