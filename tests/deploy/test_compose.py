"""compose.yaml: by the specification's own schema, by our settings and command line, and as processes that train."""

from __future__ import annotations

import copy
import json
import re
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from influencerai import __version__
from influencerai.cluster.dispatcher import end_seconds
from influencerai.cluster.joining import DEFAULT_PORT
from influencerai.serve.gate import READY_PATH
from influencerai.settings import Settings
from tests.deploy.manifests import ROOT, is_known, load, name_of, parse, seconds

EXAMPLE = ROOT / "deploy/env.example"
HEAD = "deploy/head.sh"
OF_POSTGRES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
GIVEN = {"POSTGRES_PASSWORD": "p4ss", "RAY_AUTH_TOKEN": "t0ken"}


def interpolated(value: Any, given: dict[str, str]) -> Any:
    """The document as compose reads it.

    Raises:
        KeyError: a variable is needed and not given.
    """
    if isinstance(value, dict):
        return {name: interpolated(item, given) for name, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, given) for item in value]
    if not isinstance(value, str):
        return value

    def text(found: re.Match[str]) -> str:
        name, kind, other = found.groups()
        if given.get(name):
            return given[name]
        if kind == "-":
            return str(other)
        raise KeyError(name)

    return VARIABLE.sub(text, value)


def raw() -> dict[str, Any]:
    [document] = load("compose.yaml")
    assert isinstance(document, dict)
    return document


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = interpolated(raw(), GIVEN)["services"]
    return found


def examples() -> dict[str, str]:
    """What the example of .env sets, with its values."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def command(name: str) -> list[str]:
    """What starts a service; of a head and a server in one container, what starts the head."""
    given: list[str] = services()[name]["command"]
    if given[:2] == ["bash", f"/opt/source/{HEAD}"]:
        return ["influencerai", "node", "start", "--head", *given[2:]]
    return given


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services().items() if name != "postgres"}


def test_the_specifications_schema_accepts_it() -> None:
    schema = json.loads((files("check_jsonschema.builtin_schemas") / "vendor/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    for document in (raw(), interpolated(raw(), GIVEN)):
        assert [error.message for error in validator.iter_errors(document)] == []
    broken = copy.deepcopy(raw())
    broken["services"]["api"]["helthcheck"] = {}
    assert list(validator.iter_errors(broken))


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_no_secret_has_a_default(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        interpolated(raw(), {**GIVEN, missing: ""})
    defaults = {name: other for name, kind, other in VARIABLE.findall(json.dumps(raw())) if kind == "-"}
    assert all(not defaults.get(name) for name in defaults if re.search("PASSWORD|TOKEN|SECRET|KEY", name))


def test_the_example_names_what_compose_asks_for_and_nothing_else() -> None:
    wanted = {name: other if kind == "-" else "" for name, kind, other in VARIABLE.findall(json.dumps(raw()))}
    assert examples() == wanted


def test_every_variable_is_one_that_somebody_reads() -> None:
    for name, service in services().items():
        unknown = {variable for variable in service["environment"] if not is_known(variable)}
        assert unknown == (OF_POSTGRES if name == "postgres" else set()), name
    assert not is_known("RAY_AUTH_TOKN")
    assert not is_known("INFLUENCERAI_ROOTS")


def test_its_programs_are_commands_of_ours() -> None:
    commands = {name: name_of(parse(command(name))) for name in ours()}
    assert commands == {
        "migrate": "db upgrade",
        "api": "node start",
        "worker": "node start",
        "gpu-worker": "node start",
    }


def test_the_api_is_a_server_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = services()["api"]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.auth, settings.limits_requests, settings.serves_downloads) == ("production", True, False)
    assert settings.jwt_secret is None
    user = services()["postgres"]["environment"]
    server = f"postgres:5432/{user['POSTGRES_DB']}"
    assert settings.database_url == f"postgresql://{user['POSTGRES_USER']}:{user['POSTGRES_PASSWORD']}@{server}"


def test_the_nodes_of_the_cluster_find_each_other_and_nobody_else_does() -> None:
    found = ours()
    assert parse(command("api")).params["head"]
    assert found["api"]["environment"]["RAY_ADDRESS"] == f"127.0.0.1:{DEFAULT_PORT}"
    for name in ("api", "worker", "gpu-worker"):
        environment = found[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN"] == GIVEN["RAY_AUTH_TOKEN"]
        assert found[name]["volumes"] == found["worker"]["volumes"]
    for name in ("worker", "gpu-worker"):
        assert parse(command(name)).params["head_address"] == f"api:{DEFAULT_PORT}"


def test_no_container_needs_another_ones_namespace() -> None:
    """Docker starts containers in any order when the machine does, and tries a namespace that is not there once."""
    for name, service in services().items():
        assert not {"network_mode", "pid", "ipc", "volumes_from"} & service.keys(), name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name


def test_no_node_waits_for_what_waits_for_a_node() -> None:
    """The API is ready when a node is there, so a node that waited for it would wait for ever."""
    for name in ("worker", "gpu-worker"):
        assert services()[name]["depends_on"] == {"api": {"condition": "service_started", "restart": True}}


def test_what_a_container_may_use_is_in_the_example() -> None:
    found = ours()
    assert (found["worker"]["cpus"], found["worker"]["mem_limit"], found["api"]["mem_limit"]) == ("0", "0", "8g")
    given = {**GIVEN, "WORKER_CPUS": "2.0", "WORKER_MEMORY": "16g", "API_MEMORY": "4g"}
    limited = interpolated(raw(), given)["services"]
    for name in ("worker", "gpu-worker"):
        assert (limited[name]["cpus"], limited[name]["mem_limit"]) == ("2.0", "16g")
    assert limited["api"]["mem_limit"] == "4g"


def test_what_runs_is_given_time_to_save_its_state() -> None:
    found = ours()
    drains = {name: parse(command(name)).params["drain_seconds"] for name in ("api", "worker", "gpu-worker")}
    before = {"api": end_seconds(Settings())}  # the server ends first
    for name, drain in drains.items():
        assert seconds(found[name]["stop_grace_period"]) > before.get(name, 0) + drain + 30


def test_gpus_are_asked_for_by_their_profile_alone() -> None:
    reserving = {name for name, service in services().items() if "deploy" in service}
    profiled = {name for name, service in services().items() if "profiles" in service}
    assert reserving == profiled == {"gpu-worker"}
    [device] = services()["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_images_are_of_this_version() -> None:
    images = {name: service["image"] for name, service in services().items()}
    assert images.pop("postgres") == "postgres:18"
    assert images.pop("gpu-worker") == f"influencerai:{__version__}-cuda"
    assert {*images.values()} == {f"influencerai:{__version__}-cpu"}
    for service in ours().values():
        assert service["image"].endswith(service["build"]["args"]["DEVICE"])


def test_what_is_waited_for_is_there() -> None:
    found = services()
    for name, service in found.items():
        for other, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert condition != "service_healthy" or "test" in found[other]["healthcheck"], (name, other)
            assert condition != "service_completed_successfully" or found[other]["restart"] == "no", (name, other)
    [published] = found["api"]["ports"]
    assert published == "127.0.0.1:3001:3001"
    asked = found["api"]["healthcheck"]["test"][-1]
    assert asked == f"http://127.0.0.1:3001{READY_PATH}"
