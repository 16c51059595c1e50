"""Every cURL line of the API's reference, by curl, against a real server; each answer beside the one it shows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.contract.reference import CONFIG, DATASET, JOB, OTHER_DATASET, example, examples
from tests.contract.requests import assert_shown, curl, error_as_shown, shown_headers
from tests.servers import Server

DATASET_BODY = example("Create Dataset", "Request Body").document
CONFIG_BODY = example("Create LoRA Configuration", "Request Body").document
PORTRAIT = {
    "kind": "lora-training",
    "path": "data/datasets/portrait-demo",
    "meta": {"imageCount": 15, "resolution": "512x512", "triggerWord": "demo"},
}


def make(api: Server, path: str, body: dict[str, Any]) -> str:
    """The id of something new."""
    answer = api.ask("POST", path, body)
    assert answer.status == 201, answer.body
    return str(answer.document["id"])


def report(api: Server, job: str, label: str) -> None:
    """Bring a job to the state that the reference shows under Get Job by ID, as a worker of somebody else's does."""
    shown = example("Get Job by ID", f"Response (200 OK) - {label}").document
    answer = api.ask("PATCH", f"/jobs/{job}", {"status": shown["status"], "result": shown["result"]})
    assert answer.status == 200, answer.body


@pytest.fixture
def ids(api: Server) -> dict[str, str]:
    """A dataset and a configuration as the reference makes them, by the ids that it gives them."""
    return {DATASET: make(api, "/datasets", DATASET_BODY), CONFIG: make(api, "/lora-configs", CONFIG_BODY)}


@pytest.fixture
def job(api: Server, ids: dict[str, str]) -> dict[str, str]:
    """The ids with those of a job that the reference's line made."""
    return {**ids, JOB: str(curl(api, "Create Job", ids).document["id"])}


@pytest.mark.slow
def test_create_dataset(api: Server) -> None:
    answer = curl(api, "Create Dataset")
    assert_shown(answer, "Create Dataset", "Response (201 Created)", free={"id"})
    assert re.fullmatch(r"[A-Za-z0-9_-]+", answer.document["id"])
    assert answer.headers["location"] == f"/datasets/{answer.document['id']}"


def test_list_datasets(api: Server) -> None:
    for _ in range(40):
        make(api, "/datasets", PORTRAIT)
    ids = {OTHER_DATASET: make(api, "/datasets", PORTRAIT), DATASET: make(api, "/datasets", DATASET_BODY)}
    answer = curl(api, "List Datasets")
    assert_shown(answer, "List Datasets", "Response (200 OK)", ids, part=answer.document[:2])
    assert len(answer.document) == 10
    assert answer.headers.items() >= shown_headers("List Datasets").items() == {"x-total-count": "42"}.items()


def test_get_dataset(api: Server) -> None:
    ids = {DATASET: make(api, "/datasets", DATASET_BODY)}
    curl(api, "Update Dataset Status", ids)
    answer = curl(api, "Get Dataset by ID", ids)
    assert_shown(answer, "Get Dataset by ID", "Response (200 OK)", ids, free={"meta.lastUpdatedBy"})


@pytest.mark.slow
def test_get_dataset_that_is_not_there(api: Server) -> None:
    answer = curl(api, "Get Dataset by ID")
    assert error_as_shown(answer) == example("Get Dataset by ID", "Response (404 Not Found)").document
    assert answer.status == 404


def test_update_dataset_status(api: Server) -> None:
    ids = {DATASET: make(api, "/datasets", {**DATASET_BODY, "path": "data/datasets/not-there-yet"})}
    assert api.ask("GET", f"/datasets/{ids[DATASET]}").document["status"] == "pending"
    answer = curl(api, "Update Dataset Status", ids)
    assert_shown(answer, "Update Dataset Status", "Response (200 OK)", ids)


def test_create_config(api: Server) -> None:
    answer = curl(api, "Create LoRA Configuration")
    assert_shown(answer, "Create LoRA Configuration", "Response (201 Created)", free={"id"})
    assert answer.document["id"] in answer.headers["location"]


def test_create_config_of_a_taken_name(api: Server) -> None:
    first = curl(api, "Create LoRA Configuration")
    answer = curl(api, "Create LoRA Configuration")
    assert_shown(answer, "Create LoRA Configuration", "Response (409 Conflict)")
    assert answer.document["id"] == first.document["id"]


def test_list_configs(api: Server) -> None:
    for number in range(4):
        make(api, "/lora-configs", {**CONFIG_BODY, "name": f"Another {number}"})
    make(api, "/lora-configs", {**CONFIG_BODY, "name": "Of another model", "modelName": "sd15"})
    ids = {CONFIG: make(api, "/lora-configs", CONFIG_BODY)}
    answer = curl(api, "List LoRA Configurations")
    shown_part = {**answer.document, "data": answer.document["data"][:1]}
    assert_shown(answer, "List LoRA Configurations", "Response (200 OK)", ids, part=shown_part)
    assert len(answer.document["data"]) == 5
    headers = shown_headers("List LoRA Configurations")
    assert headers == {"x-total-count": "5", "x-take": "10", "x-skip": "0"}
    assert answer.headers.items() >= headers.items()


def test_get_config(api: Server) -> None:
    shown = example("Get LoRA Configuration by ID", "Response (200 OK)").document
    ids = {CONFIG: make(api, "/lora-configs", {**CONFIG_BODY, "description": shown["description"]})}
    answer = curl(api, "Get LoRA Configuration by ID", ids)
    assert_shown(answer, "Get LoRA Configuration by ID", "Response (200 OK)", ids)


def test_update_config(api: Server, ids: dict[str, str]) -> None:
    other = make(api, "/lora-configs", {**CONFIG_BODY, "name": "Default until now", "isDefault": True})
    answer = curl(api, "Update LoRA Configuration", ids)
    assert_shown(answer, "Update LoRA Configuration", "Response (200 OK)", ids)
    assert api.ask("GET", f"/lora-configs/{other}").document["isDefault"] is False


def test_delete_default_config(api: Server, ids: dict[str, str]) -> None:
    curl(api, "Update LoRA Configuration", ids)
    answer = curl(api, "Delete LoRA Configuration", ids)
    assert answer.document == example("Delete LoRA Configuration", "Response (200 OK)").document
    assert api.ask("GET", f"/lora-configs/{ids[CONFIG]}").status == 404


def test_delete_config_that_jobs_use(api: Server, ids: dict[str, str]) -> None:
    first, _, _ = (str(curl(api, "Create Job", ids).document["id"]) for _ in range(3))
    report(api, first, "Running job")
    answer = curl(api, "Delete LoRA Configuration", ids)
    shown = example("Delete LoRA Configuration", "Response (400 Bad Request)").document
    assert (answer.status, error_as_shown(answer)) == (400, shown)


def test_create_job(api: Server, ids: dict[str, str]) -> None:
    answer = curl(api, "Create Job", ids)
    assert_shown(answer, "Create Job", "Response (201 Created)", ids, free={"id"})
    assert answer.headers["location"] == f"/jobs/{answer.document['id']}"


def test_list_jobs(api: Server, ids: dict[str, str]) -> None:
    for _ in range(12):
        ids[JOB] = curl(api, "Create Job", ids).document["id"]
        report(api, ids[JOB], "Completed job")
    curl(api, "Create Job", ids)
    answer = curl(api, "List Jobs")
    shown_part = {**answer.document, "data": answer.document["data"][:1]}
    assert_shown(answer, "List Jobs", "Response (200 OK)", ids, part=shown_part)
    assert len(answer.document["data"]) == 10


def test_get_pending_job(api: Server, job: dict[str, str]) -> None:
    answer = curl(api, "Get Job by ID", job)
    assert_shown(answer, "Get Job by ID", "Response (200 OK) - Pending job", job)


@pytest.mark.parametrize("label", ["Running job", "Completed job", "Failed job"])
def test_get_job_that_another_worker_trains(api: Server, job: dict[str, str], label: str) -> None:
    report(api, job[JOB], label)
    answer = curl(api, "Get Job by ID", job)
    assert_shown(answer, "Get Job by ID", f"Response (200 OK) - {label}", job)


def test_update_job(api: Server, job: dict[str, str]) -> None:
    answer = curl(api, "Update Job", job)
    assert_shown(answer, "Update Job", "Response (200 OK)", job)
    assert api.ask("GET", f"/jobs/{job[JOB]}").document["startedAt"]


def test_job_series(api: Server, ids: dict[str, str]) -> None:
    shown = example("Get Job Series (Analytics)", "Response (200 OK)").document
    last = shown["data"][-1]
    for label, count in (("Completed job", 18), ("Failed job", 1), ("Running job", 2)):
        for _ in range(count):
            report(api, curl(api, "Create Job", ids).document["id"], label)
    answer = curl(api, "Get Job Series (Analytics)")
    shown_part = {**answer.document, "data": answer.document["data"][-2:]}
    free = {f"data.{name}" for name in shown["data"][0]}
    assert_shown(answer, "Get Job Series (Analytics)", "Response (200 OK)", free=free, part=shown_part)
    assert answer.document["data"][-1] == {**last, "date": datetime.now(UTC).date().isoformat()}
    assert all(sum(span[name] for name in last if name != "date") == 0 for span in answer.document["data"][:-1])


def test_error_format(api: Server) -> None:
    answer = api.ask("POST", "/lora-configs", {**CONFIG_BODY, "learningRate": 0})
    shown = example("Error Response Format", "").document
    assert answer.status == shown["statusCode"]
    document = error_as_shown(answer)
    [text] = document["errors"]["fieldErrors"].pop("learningRate")
    [shown_text] = shown["errors"]["fieldErrors"].pop("learningRate")
    # The range includes its ends, so the sentence differs; both name the bound.
    assert text.split()[-1] == shown_text.split()[-1] == "0.000001"
    assert document == shown


def test_status_codes(api: Server, ids: dict[str, str]) -> None:
    assert api.ask("GET", "/datasets", tenant=None).status == 401
    assert api.ask("GET", f"/datasets/{ids[DATASET]}", tenant="somebody_else").status == 404
    assert api.ask("POST", "/datasets", "no object").status == 400


def test_documentation_page(api: Server) -> None:
    answer = api.ask("GET", "/api", tenant=None)
    assert answer.status == 200
    assert b"swagger" in answer.body.lower()


def test_no_line_of_the_reference_is_left_out() -> None:
    text = Path(__file__).read_text()
    titles = {item.title for item in examples() if item.label == "cURL Example"}
    assert len(titles) == 14
    assert {title for title in titles if f'curl(api, "{title}"' not in text} == set()
