"""The API's document: complete, true to its own examples, and shown by a page that needs no other host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
import pytest
from fastapi.routing import APIRoute

from influencerai.client import InfluencerAIClient
from influencerai.serve.app import create_app
from influencerai.serve.client_calls import CALLS
from influencerai.service import Service
from influencerai.settings import Settings
from tests.contract.reference import CONFIG, DATASET, JOB, example
from tests.serve.running import Api, running

EVERYWHERE = {"401", "403", "405", "429", "500", "503"}
OPEN = {"get_health", "get_readiness"}
WITHOUT_JSON = {"get_thumbnail", "get_sample_thumbnail", "get_metrics", "download_job_artifact"}


def document_of(**settings: Any) -> dict[str, Any]:
    service = Service(Settings(root=Path("/nowhere"), **settings), needs_worker=False)
    return create_app(service).openapi()


DOCUMENT = document_of()


def operations(document: dict[str, Any] = DOCUMENT) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in document["paths"].items():
        for method, operation in found.items():
            yield method, path, operation


OPERATIONS = {operation["operationId"]: operation for _, _, operation in operations()}


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """What a reference refers to."""
    if "$ref" not in part:
        return part
    found: Any = DOCUMENT
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def check(value: Any, schema: dict[str, Any]) -> None:
    """Hold a value against a schema of the document."""
    validator = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    validator.validate(value)


def contract_example(title: str) -> Any:
    """A request body of the API's reference, with the ids that the document's examples use."""
    text = example(title, "Request Body").body
    ids = {DATASET: "0198f3a1-5c00-7000-8000-00000000000a", CONFIG: "0198f3a1-5c00-7000-8000-00000000000b"}
    for old, new in ids.items():
        text = text.replace(old, new)
    assert JOB not in text
    return json.loads(text)


def test_every_route_is_in_it() -> None:
    app = create_app(Service(Settings(root=Path("/nowhere")), needs_worker=False))
    shown = {route.path for route in app.routes if isinstance(route, APIRoute)}
    assert shown == {"/api", "/api/swagger-ui-bundle.js", "/api/swagger-ui.css", "/api/favicon.png"}
    assert len(OPERATIONS) == len(list(operations())) >= 31


@pytest.mark.slow
def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    text = str(DOCUMENT)
    for reference in set(re.findall(r"'\$ref': '([^']+)'", text)):
        assert resolved({"$ref": reference})
    assert "HTTPValidationError" not in text
    assert "-Input" not in text


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_what_it_does(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"].endswith(".")
    assert operation["tags"] in [[tag["name"]] for tag in DOCUMENT["tags"]]
    for parameter in operation.get("parameters", []):
        assert "anyOf" not in parameter["schema"]
        assert parameter["in"] != "path" or parameter["example"]


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - OPEN))
def test_every_operation_has_its_errors(name: str) -> None:
    operation = OPERATIONS[name]
    statuses = set(operation["responses"])
    expected = set(EVERYWHERE)
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        expected.add("404")
    if "requestBody" in operation:
        expected |= {"400", "413"}
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
        expected.add("400")
    assert statuses >= expected
    assert "422" not in statuses
    for status in statuses & {"400", "401", "403", "404", "405", "409", "413", "416", "429", "500", "503"}:
        response = resolved(operation["responses"][status])
        content = response["content"]["application/json"]
        check(content["example"], content["schema"])
        assert content["example"]["statusCode"] == int(status)
        own = {"401": "WWW-Authenticate", "405": "Allow", "429": "Retry-After", "503": "Retry-After"}
        assert {"X-Request-Id", "X-RateLimit-Limit", own.get(status, "X-RateLimit-Reset")} <= response["headers"].keys()


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - WITHOUT_JSON))
def test_every_answer_has_an_example_of_its_shape(name: str) -> None:
    answers = [response for status, response in OPERATIONS[name]["responses"].items() if status.startswith("2")]
    examples = [
        (content["example"], content["schema"])
        for answer in answers
        if "example" in (content := answer.get("content", {}).get("application/json", {}))
    ]
    [(shown, schema)] = examples
    check(shown, schema)


@pytest.mark.parametrize("name", [name for name, found in OPERATIONS.items() if "requestBody" in found])
def test_every_body_has_an_example_of_its_shape(name: str) -> None:
    [(media_type, content)] = OPERATIONS[name]["requestBody"]["content"].items()
    if media_type == "application/json":
        check(content["example"], content["schema"])
    else:
        assert (name, media_type) == ("upload_images", "multipart/form-data")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("create_dataset", "Create Dataset"),
        ("update_dataset_status", "Update Dataset Status"),
        ("create_lora_config", "Create LoRA Configuration"),
        ("update_lora_config", "Update LoRA Configuration"),
        ("create_job", "Create Job"),
        ("update_job", "Update Job"),
    ],
)
def test_examples_of_bodies_are_those_of_the_reference(name: str, title: str) -> None:
    shown = OPERATIONS[name]["requestBody"]["content"]["application/json"]["example"]
    assert shown == contract_example(title)


def test_lists_and_new_things_have_their_headers() -> None:
    for name in ("list_datasets", "list_lora_configs", "list_jobs", "list_images"):
        assert {"X-Total-Count", "X-Take", "X-Skip"} <= OPERATIONS[name]["responses"]["200"]["headers"].keys()
    for name in ("create_dataset", "create_lora_config", "create_job", "retry_job"):
        assert "Location" in OPERATIONS[name]["responses"]["201"]["headers"]
        [key] = [item for item in OPERATIONS[name]["parameters"] if item["in"] == "header"]
        assert key["name"] == "Idempotency-Key"


def test_null_is_said_where_it_counts() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    draft, change = schemas["LoraConfigDraft"]["properties"], schemas["LoraConfigChange"]["properties"]
    assert {"type": "null"} in draft["epochs"]["anyOf"]
    assert {"type": "null"} in schemas["JobPayload"]["properties"]["priority"]["anyOf"]
    assert draft["name"]["type"] == "string"
    assert {name for name, found in change.items() if "anyOf" in found} == {"description", "outputPath"}


@pytest.mark.slow
@pytest.mark.parametrize(("auth", "names"), [("development", [["tenant"]]), ("production", [["bearer"], ["apiKey"]])])
def test_security_is_that_of_the_mode(auth: str, names: list[list[str]]) -> None:
    document = document_of(auth=auth)
    assert set(document["components"]["securitySchemes"]) == {"tenant", "bearer", "apiKey"}
    for _, path, operation in operations(document):
        open_here = path in ("/healthz", "/readyz") or (path == "/metrics" and auth == "development")
        assert [list(item) for item in operation["security"]] == ([] if open_here else names), path


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_page_and_all_that_it_loads_come_from_here(api: Api) -> None:
    page = await api.client.get("/api", headers={"host": "evil.example"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert re.findall(r"https?://[^\s\"'<]+", page.text) == []
    assets = re.findall(r"(?:href|src)=\"([^\"]+)\"", page.text)
    assert len(assets) == 3
    for asset in assets:
        assert asset.startswith("/api/")
        found = await api.client.get(asset)
        assert (found.status_code, len(found.content) > 500) == (200, True)
    [document] = re.findall(r"url: '([^']+)'", page.text)
    shown = (await api.client.get(document)).json()
    assert shown == api.app.openapi()


@pytest.mark.slow
@pytest.mark.anyio
async def test_behind_a_prefix_the_page_finds_its_parts(tmp_path: Path, sqlite_url: str) -> None:
    async with running(Settings(root=tmp_path, database_url=sqlite_url)) as api:
        api.app.root_path = "/influencer"
        page = await api.client.get("/api")
        assert "/influencer/api/swagger-ui.css" in page.text
        assert "'/influencer/api/openapi.json'" in page.text


@pytest.mark.anyio
async def test_a_method_that_is_missing_is_told_which_there_are(api: Api) -> None:
    for path, allowed in (
        ("/datasets", "GET, HEAD, POST"),
        ("/datasets/x", "DELETE, GET, HEAD, PATCH"),
        ("/jobs/series", "GET, HEAD"),
        ("/jobs/x/cancel", "POST"),
    ):
        answer = await api.send("PUT", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_that_is_no_json_is_refused(api: Api, content_type: str) -> None:
    for path in ("/datasets", "/lora-configs", "/jobs"):
        for body in (b"", b"abc"):
            headers = {"content-type": content_type, "idempotency-key": "k"}
            answer = await api.send("POST", path, content=body, headers=headers)
            assert answer.status_code == 400, answer.text
            assert answer.json()["message"] == "Validation failed"


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
def test_an_operation_has_a_sentence_and_the_calls_of_the_clients(path: str) -> None:
    for operation in DOCUMENT["paths"][path].values():
        assert len(operation["summary"].split()) >= 3
        if path in ("/healthz", "/metrics") or path.startswith("/admin"):
            continue
        call = CALLS[operation["operationId"]]
        owner, _, name = f"client.{call}".rpartition(".")
        resource = get_type_hints(InfluencerAIClient).get(owner.removeprefix("client").lstrip("."), InfluencerAIClient)
        assert callable(getattr(resource, name))
        assert f"client.{call}(...)" in operation["description"]
