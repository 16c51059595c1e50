"""The API's document, and the page that shows it: what FastAPI writes, with security, errors and examples."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel

from influencerai.serve.client_calls import CALLS
from influencerai.serve.documents import ERROR_NAMES
from influencerai.serve.examples import ANSWERS, ERRORS, MISSING, PATH_PARAMETERS, REQUESTS
from influencerai.serve.schemas import complete_schemas, dictionaries, name_schemas
from influencerai.settings import Settings

PAGE_PATH = "/api"
DOCUMENT_PATH = "/api/openapi.json"
TAGS = [
    {"name": "Datasets", "description": "Folders of images and captions."},
    {"name": "LoRA configs", "description": "Training configurations to use again and again."},
    {"name": "Jobs", "description": "Trainings: submitted, watched, ended; and what they leave."},
    {"name": "Operation", "description": "For those who run the server."},
]
_ASSETS = {
    "swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": ("swagger-ui.css", "text/css"),
    "favicon.png": ("favicon-32x32.png", "image/png"),
}
"""By name in the page's folder: the file that fastapi-swagger brings, and its media type."""
_PAGE_OPTIONS = {"tryItOutEnabled": True, "persistAuthorization": True, "filter": True, "displayRequestDuration": True}
_SCHEMES: dict[str, Any] = {
    "tenant": {
        "type": "apiKey",
        "in": "header",
        "name": "x-tenant-id",
        "description": "Development: the tenant is believed. With a worker's credential: the tenant it works for.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "Production: an API key or a JWT."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "Production: an API key."},
}
_NAMES = {
    "Body_upload_images": "ImageUpload",
    "LoraConfig-Input": "LoraConfigDraft",
    "LoraConfig-Output": "LoraConfig",
}
"""By the name that FastAPI gives a schema: the one that it has in the document."""
_LARGEST = 2**63 - 1


def operation_id(route: APIRoute) -> str:
    """The name of an operation in generated clients."""
    return route.name


def describe(app: FastAPI, settings: Settings) -> None:
    """Make `app.openapi()` the complete document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def add_page(app: FastAPI) -> None:
    """Serve Swagger UI at /api, with nothing from other hosts."""
    folder = resources.files("fastapi_swagger") / "resources"

    @app.get(PAGE_PATH, include_in_schema=False)
    async def get_page(request: Request) -> Response:
        base = request.scope.get("root_path", "").rstrip("/")
        script, style, icon = (f"{base}{PAGE_PATH}/{name}" for name in _ASSETS)
        return get_swagger_ui_html(
            openapi_url=f"{base}{DOCUMENT_PATH}",
            title=f"{app.title} API",
            swagger_js_url=script,
            swagger_css_url=style,
            swagger_favicon_url=icon,
            swagger_ui_parameters=_PAGE_OPTIONS,
        )

    def add_asset(name: str, file: str, media_type: str) -> None:
        @app.get(f"{PAGE_PATH}/{name}", include_in_schema=False)
        async def get_asset() -> Response:
            content = (folder / file).read_bytes()
            return Response(content, media_type=media_type, headers={"cache-control": "public, max-age=86400"})

    for name, (file, media_type) in _ASSETS.items():
        add_asset(name, file, media_type)


def _document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        tags=TAGS,
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    components["headers"] = _HEADERS
    components["responses"] = {}
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    complete_schemas(document)
    name_schemas(document, _NAMES)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe(operation)
            operation["security"] = _security(path, settings)
            _complete_parameters(operation)
            _complete_body(operation, components["schemas"])
            _complete_responses(operation, components["responses"])
    _add_links(document["paths"])
    for schema in dictionaries(components["schemas"]):
        _correct(schema)
    return document


def _security(path: str, settings: Settings) -> list[dict[str, list[str]]]:
    """Any one of these."""
    is_development = settings.auth == "development"
    if path in ("/healthz", "/readyz") or (path == "/metrics" and is_development):
        return []
    return [{"tenant": []}] if is_development else [{"bearer": []}, {"apiKey": []}]


def _describe(operation: dict[str, Any]) -> None:
    """The first line as summary, which lists of operations show, and the calls of the clients below the text."""
    text = operation["description"].strip()
    operation["summary"] = text.splitlines()[0].removesuffix(".")
    call = CALLS.get(operation["operationId"])
    if call is not None:
        text += f"\n\nPython: `client.{call}(...)`, TypeScript: `client.{to_camel(call)}(...)`."
    operation["description"] = text


def _complete_parameters(operation: dict[str, Any]) -> None:
    """A parameter that is not given is absent: no text of a URL or a header means null."""
    for parameter in operation.get("parameters", []):
        found = PATH_PARAMETERS.get((operation["tags"][0], parameter["name"]))
        if parameter["in"] == "path" and found is not None:
            parameter["description"], parameter["example"] = found
        schema = parameter["schema"]
        if "anyOf" in schema:
            [value] = [item for item in schema.pop("anyOf") if item != {"type": "null"}]
            schema.update(value)
        schema.pop("title", None)
        schema.pop("description", None)


def _complete_body(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        content["example"] = REQUESTS[operation["operationId"]]
        _allow_nulls(schemas, content["schema"]["$ref"])


def _allow_nulls(schemas: dict[str, Any], reference: str) -> None:
    """In a body null counts as absent, where a field may be absent and has no null of its own."""
    schema = schemas[reference.rpartition("/")[2]]
    if "Change" in schema["title"]:
        return  # there null is said field by field
    for name, found in schema["properties"].items():
        if (component := _reference(found)) is not None:
            _allow_nulls(schemas, component)
        elif name not in schema.get("required", ()) and "anyOf" not in found:
            about = {key: found.pop(key) for key in ("description", "default") if key in found}
            schema["properties"][name] = {"anyOf": [found, {"type": "null"}], **about}


def _reference(schema: dict[str, Any]) -> str | None:
    """The component that a property is, be it that it may be null too."""
    for item in (schema, *schema.get("anyOf", ())):
        if "$ref" in item:
            return str(item["$ref"])
    return None


def _complete_responses(operation: dict[str, Any], shared: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    tag = operation["tags"][0]
    for status, response in responses.items():
        headers = response.setdefault("headers", {})
        headers.update({name: {"$ref": f"#/components/headers/{name}"} for name in _headers_of(status, operation)})
        content = response.get("content", {}).get("application/json")
        if content is not None and status.startswith("2") and (status != "200" or "201" not in responses):
            content["example"] = ANSWERS[operation["operationId"]]
        if status in ERROR_NAMES and "ErrorBody" in json.dumps(content):
            assert content is not None
            content["example"] = MISSING[tag] if status == "404" else ERRORS[status]
            name = f"{tag.replace(' ', '')}{ERROR_NAMES[status]}" if status == "404" else ERROR_NAMES[status]
            shared.setdefault(name, dict(response))  # the first ones are limited; /metrics is last
            response.clear()
            response["$ref"] = f"#/components/responses/{name}"


def _add_links(paths: dict[str, Any]) -> None:
    """Link every answer with an id to the operations that take it."""
    for path, operations in paths.items():
        collection, _, rest = path.removeprefix("/").partition("/")
        uses = [
            operation["operationId"]
            for other, found in paths.items()
            for operation in found.values()
            if other.startswith(f"/{collection}/{{id}}")
        ]
        for method, operation in operations.items():
            responses = operation["responses"]
            answer = responses.get("201") or (responses["200"] if (method, rest) == ("get", "{id}") else None)
            if answer is not None:
                parameters = {"id": "$response.body#/id"}
                answer["links"] = {name: {"operationId": name, "parameters": parameters} for name in uses}


def _headers_of(status: str, operation: dict[str, Any]) -> list[str]:
    """Headers of every answer of a status, beside those of its route."""
    own = {"401": ["WWW-Authenticate"], "405": ["Allow"], "429": ["Retry-After"], "503": ["Retry-After"]}
    limits = [name for name in _HEADERS if name.startswith("X-RateLimit")] if operation["security"] else []
    return ["X-Request-Id", *limits, *(own.get(status, []) if operation["security"] else [])]


def _correct(schema: dict[str, Any]) -> None:
    """Drop titles that only repeat a field's name, and give whole bounds their exact value back."""
    if isinstance(schema.get("title"), str):
        schema.pop("title")
    for name in ("minimum", "maximum"):
        if isinstance(bound := schema.get(name), float) and bound.is_integer():
            schema[name] = min(int(bound), _LARGEST)


def _header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


_HEADERS: dict[str, Any] = {
    "X-Request-Id": _header("Found again in the server's log; taken from the request, or made."),
    "X-RateLimit-Limit": _header("Requests per minute, where they are limited.", "integer"),
    "X-RateLimit-Remaining": _header("What is left of them.", "integer"),
    "X-RateLimit-Reset": _header("Unix time of the next minute.", "integer"),
    "Retry-After": _header("Seconds until it is worth trying again.", "integer"),
    "WWW-Authenticate": _header("How to say who sends a request."),
    "Allow": _header("The methods that the route has."),
}
