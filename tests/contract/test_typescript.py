"""Every TypeScript snippet of the API's reference that calls the API itself, in Node, against a real server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.contract.reference import CONFIG, DATASET, example, examples
from tests.contract.requests import run_snippet, snippet
from tests.servers import Server

DATASET_BODY = example("Create Dataset", "Request Body").document
CONFIG_BODY = example("Create LoRA Configuration", "Request Body").document


@pytest.fixture
def ids(api: Server) -> dict[str, str]:
    """A dataset and a configuration as the reference makes them, by the ids that it gives them."""
    return {
        DATASET: api.ask("POST", "/datasets", DATASET_BODY).document["id"],
        CONFIG: api.ask("POST", "/lora-configs", CONFIG_BODY).document["id"],
    }


@pytest.mark.slow
def test_create_dataset(api: Server) -> None:
    printed, _ = run_snippet(api, "Create Dataset")
    [made] = api.ask("GET", "/datasets").document
    assert printed == f"Dataset created: {made['id']}\n"
    assert {name: made[name] for name in DATASET_BODY} == DATASET_BODY


@pytest.mark.slow
def test_list_datasets(api: Server) -> None:
    for _ in range(12):
        api.ask("POST", "/datasets", DATASET_BODY)
    printed, _ = run_snippet(api, "List Datasets")
    assert printed == "Found 12 total datasets, showing 10\n"


def test_get_dataset(api: Server, ids: dict[str, str]) -> None:
    assert run_snippet(api, "Get Dataset by ID", ids) == ("Dataset status: ready\n", "")
    assert run_snippet(api, "Get Dataset by ID") == ("", "Dataset not found\n")


def test_create_config(api: Server) -> None:
    printed, _ = run_snippet(api, "Create LoRA Configuration")
    [made] = api.ask("GET", "/lora-configs").document["data"]
    assert printed == f"Config created: {made['id']}\n"
    assert (made["description"], made["epochs"], made["meta"]) == (None, 20, CONFIG_BODY["meta"])


def test_list_configs(api: Server, ids: dict[str, str]) -> None:
    for number in range(11):
        api.ask("POST", "/lora-configs", {**CONFIG_BODY, "name": f"Another {number}"})
    printed, _ = run_snippet(api, "List LoRA Configurations")
    assert printed == "Found 12 configs, showing 10\n"


def test_update_config(api: Server, ids: dict[str, str]) -> None:
    printed, _ = run_snippet(api, "Update LoRA Configuration", ids)
    assert printed.startswith("Updated config: {")
    for line in ("epochs: 30", "learningRate: 0.00005", "isDefault: true", f"id: '{ids[CONFIG]}'"):
        assert line in printed


@pytest.mark.slow
def test_create_job_and_poll_it(api: Server, ids: dict[str, str]) -> None:
    """The snippet looks every 5 seconds; in between, the test is the worker."""
    arguments = snippet(api, "Create Job", ids)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        job = process.stdout.readline().removeprefix("Job created: ").strip()
        for label, printed in (("Running job", "running"), ("Completed job", "completed")):
            shown = example("Get Job by ID", f"Response (200 OK) - {label}").document
            report = {"status": shown["status"], "result": shown["result"]}
            assert api.ask("PATCH", f"/jobs/{job}", report).status == 200
            assert process.stdout.readline() == f"Job status: {printed}\n"
        rest = process.stdout.read()
        assert rest.startswith("Job finished: {")
        assert "my-influencer-v1-final.safetensors" in rest
        assert process.wait(30) == 0


def test_no_snippet_of_the_reference_is_left_out() -> None:
    text = Path(__file__).read_text()
    titles = {item.title for item in examples() if item.label == "TypeScript Example"}
    assert len(titles) == 7
    assert {title for title in titles if f'snippet(api, "{title}"' not in text} == set()
