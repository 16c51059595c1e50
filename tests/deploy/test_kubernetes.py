"""The manifests for Kubernetes: by its schema, KubeRay's and Serve's, by our settings and command line."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import ValidationError, validate
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
from ray.serve.schema import ServeDeploySchema

from influencerai import __version__
from influencerai.cluster.joining import DEFAULT_PORT, NodeOffer, start_command
from influencerai.serve.gate import OPEN_PATHS, READY_PATH
from influencerai.settings import Settings
from tests.deploy.kuberay import SCHEMAS
from tests.deploy.manifests import ROOT, is_known, load, name_of, parse, pinned
from tests.documents import read_blocks

FOLDER = ROOT / "deploy/kubernetes"
KUBERNETES = "1.33"


def resources() -> list[dict[str, Any]]:
    """Everything that the kustomization applies."""
    [kustomization] = load("deploy/kubernetes/kustomization.yaml")
    return [found for name in kustomization["resources"] for found in load(f"deploy/kubernetes/{name}")]


def the(kind: str) -> dict[str, Any]:
    [found] = [resource for resource in resources() if resource["kind"] == kind]
    return found


def groups(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """Head and worker groups of a Ray cluster or of a service's."""
    spec = resource["spec"].get("rayClusterConfig", resource["spec"])
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods() -> dict[str, dict[str, Any]]:
    """The spec of every pod, by whose it is."""
    found: dict[str, dict[str, Any]] = {}
    for resource in resources():
        name = resource["metadata"]["name"]
        if resource["kind"] in SCHEMAS:
            found |= {
                f"{name}/{group.get('groupName', 'head')}": group["template"]["spec"] for group in groups(resource)
            }
        elif resource["kind"] == "Job":
            found[name] = resource["spec"]["template"]["spec"]
    return found


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container with a name that says where it is."""
    for name, pod in pods().items():
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            yield f"{name}/{container['name']}", container


def programs() -> dict[str, list[str]]:
    """The command lines that the manifests give, by container."""
    return {name: container["args"] for name, container in containers() if "args" in container}


def test_kubernetes_schema_accepts_them() -> None:
    for resource in resources():
        if resource["kind"] not in SCHEMAS:
            validate(resource, KUBERNETES, strict=True)
    for name, spec in pods().items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.replace("/", "-")}, "spec": spec}
        validate(pod, KUBERNETES, strict=True)
        broken = copy.deepcopy(spec)
        broken["containers"][0]["readynessProbe"] = {}
        with pytest.raises(ValidationError):
            validate({**pod, "spec": broken}, KUBERNETES, strict=True)


def test_kuberays_schema_accepts_them() -> None:
    for kind, schema in SCHEMAS.items():
        resource = the(kind)
        jsonschema.validate(resource, schema)
        assert all(group.get("replicas", 0) <= group.get("maxReplicas", 0) for group in groups(resource)[1:])


def test_all_files_are_applied() -> None:
    [kustomization] = load("deploy/kubernetes/kustomization.yaml")
    files = {path.name for path in FOLDER.iterdir()}
    assert {*kustomization["resources"]} == files - {"kustomization.yaml"}


def test_serves_own_schema_accepts_the_application() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(the("RayService")["spec"]["serveConfigV2"]))
    [application] = config.applications
    assert application.import_path == "influencerai.serve.rayservice:app"
    assert (application.route_prefix, config.http_options.port) == ("/", 3001)
    [api] = application.deployments
    [group] = groups(the("RayService"))[1:]
    assert api.num_replicas == group["replicas"]  # each in a pod of its own
    assert api.max_replicas_per_node == 1


def test_no_cluster_is_without_a_token() -> None:
    for kind in SCHEMAS:
        spec = the(kind)["spec"]
        assert spec.get("rayClusterConfig", spec)["authOptions"] == {"mode": "token"}
    for name, container in containers():
        for variable in container.get("env", []):
            assert variable["name"] != "RAY_AUTH_MODE" or variable["value"] == "token", name


def test_the_dispatcher_joins_the_head_beside_it_with_the_clusters_token() -> None:
    pod = pods()["influencerai-training/head"]
    assert pod["shareProcessNamespace"]
    head, dispatcher = pod["containers"]
    environment = {item["name"]: item for item in dispatcher["env"]}
    assert environment["RAY_ADDRESS"]["value"] == f"127.0.0.1:{DEFAULT_PORT}"
    secret = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": the("RayCluster")["metadata"]["name"], "key": "auth_token"}  # as KubeRay makes it
    assert head["volumeMounts"] == dispatcher["volumeMounts"]
    assert "/tmp/ray" in {mount["mountPath"] for mount in head["volumeMounts"]}


def test_every_variable_is_one_that_somebody_reads() -> None:
    for name, container in containers():
        assert [item["name"] for item in container.get("env", []) if not is_known(item["name"])] == [], name
    assert [name for name in the("ConfigMap")["data"] if not is_known(name)] == []


def test_the_settings_are_those_of_production(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in the("ConfigMap")["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.auth, settings.limits_requests, settings.serves_downloads) == ("production", True, False)
    assert settings.root == Path("/srv/influencerai")
    ports = {port["containerPort"] for _, item in containers() for port in item.get("ports", [])}
    assert settings.port in ports


def test_its_programs_are_commands_of_ours() -> None:
    shell = re.compile(r"until (influencerai .*); do sleep 5; done")
    found = {}
    for name, arguments in programs().items():
        if arguments[:2] == ["sh", "-c"]:
            matched = shell.fullmatch(arguments[2])
            assert matched is not None
            arguments = shlex.split(matched[1])
        found[name] = name_of(parse(arguments))
    assert found == {
        "influencerai-migrate-0-1-0/migrate": "db upgrade",
        "influencerai-training/head/wait-for-schema": "db check",
        "influencerai-training/head/ray-head": "node start",
        "influencerai-training/head/dispatcher": "serve",
        "influencerai-training/gpu/ray-worker": "node start",
        "influencerai-training/cpu/ray-worker": "node start",
        "influencerai-api/head/wait-for-schema": "db check",
    }


def test_what_runs_is_given_time_to_save_its_state() -> None:
    for name, pod in pods().items():
        starts = [parse(item["args"]) for item in pod["containers"] if "node" in item.get("args", [])]
        for context in starts:
            assert pod["terminationGracePeriodSeconds"] > context.params["drain_seconds"] + 30, name


def test_probes_ask_what_is_answered_to_anybody() -> None:
    found = {}
    for name, container in containers():
        named = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe := container.get(kind):
                path, port = probe["httpGet"]["path"], probe["httpGet"]["port"]
                if port == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT:
                    assert path in PUBLIC_EXACT_PATHS
                else:
                    assert path in (*OPEN_PATHS, READY_PATH)
                    assert named[port] == 3001
                found[name.partition("-")[2], kind] = path
    node = {"livenessProbe": "/api/healthz", "readinessProbe": "/api/healthz"}
    assert found == {
        **{("training/head/ray-head", kind): path for kind, path in node.items()},
        **{("training/gpu/ray-worker", kind): path for kind, path in node.items()},
        **{("training/cpu/ray-worker", kind): path for kind, path in node.items()},
        ("training/head/dispatcher", "startupProbe"): "/healthz",
        ("training/head/dispatcher", "livenessProbe"): "/healthz",
        ("training/head/dispatcher", "readinessProbe"): "/readyz",
        ("api/api/ray-worker", "readinessProbe"): "/readyz",
    }


def test_a_node_without_a_dashboard_has_its_own_probes() -> None:
    """Where one is missing KubeRay 1.5 gives one that asks the dashboard of a head, and kills it after ten minutes."""
    nodes = {name: item for name, item in containers() if "node" in item.get("args", [])}
    assert len(nodes) == 3
    assert "--include-dashboard=false" in start_command(NodeOffer(), head_address=None)
    for name, container in nodes.items():
        assert {"livenessProbe", "readinessProbe"} <= container.keys(), name


def policies() -> dict[str, dict[str, Any]]:
    """The specs of the network's policies by name."""
    found = [item for item in resources() if item["kind"] == "NetworkPolicy"]
    return {item["metadata"]["name"]: item["spec"] for item in found}


def labels() -> dict[str, dict[str, str]]:
    """The labels of the pods that KubeRay makes, by cluster and group; a service's cluster has a name that it makes."""
    found = {}
    for kind in SCHEMAS:
        for index, group in enumerate(groups(the(kind))):
            cluster = the(kind)["metadata"]["name"]
            own = group["template"].get("metadata", {}).get("labels", {})
            given = {
                "ray.io/cluster": f"{cluster}-x7k2p" if kind == "RayService" else cluster,
                "ray.io/node-type": "worker" if index else "head",
                "ray.io/group": group.get("groupName", "headgroup"),
            }
            found[f"{cluster}/{group.get('groupName', 'head')}"] = own | given
    return found


def reaches(port: int, pod: dict[str, str], *, caller: dict[str, str], within: bool) -> bool:
    """Whether the policies let a caller's packets in, as Kubernetes reads them: what one of them allows is allowed.

    Args:
        port: of the pod that is called.
        pod: its labels.
        caller: labels of the pod that calls.
        within: whether that one is in the same namespace.
    """

    def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
        assert selector.keys() <= {"matchLabels"}
        wanted: dict[str, str] = selector.get("matchLabels", {})
        return wanted.items() <= labels.items()

    def is_from(peer: dict[str, Any]) -> bool:
        assert peer.keys() <= {"podSelector", "namespaceSelector"}
        assert not peer.get("namespaceSelector")
        return ("namespaceSelector" in peer or within) and selects(peer.get("podSelector", {}), caller)

    chosen = [spec for spec in policies().values() if selects(spec["podSelector"], pod)]
    assert all(spec["policyTypes"] == ["Ingress"] for spec in chosen)
    rules = [rule for spec in chosen for rule in spec.get("ingress", [])]
    return not chosen or any(
        ("from" not in rule or any(map(is_from, rule["from"])))
        and ("ports" not in rule or port in {item["port"] for item in rule["ports"]})
        for rule in rules
    )


def test_the_network_lets_in_whom_it_should_and_nobody_else() -> None:
    pods, stranger = labels(), {"app": "somebody's"}
    operator = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
    for name, pod in {**pods, "migrate": {"job-name": "influencerai-migrate"}}.items():
        open_ports = [
            port for port in (3001, 6379, 8265, 52365, 10002) if reaches(port, pod, caller=stranger, within=False)
        ]
        assert open_ports == ([3001] if name == "influencerai-api/api" else []), name
        assert [port for port in (3001, 6379, 8265) if reaches(port, pod, caller=stranger, within=True)] == open_ports
        assert reaches(8265, pod, caller=operator, within=False) == (name == "influencerai-api/head")
        assert not reaches(6379, pod, caller=operator, within=False)
        for other, caller in pods.items():
            same = name.partition("/")[0] == other.partition("/")[0]
            assert reaches(6379, pod, caller=caller, within=True) == same, (name, other)
            assert not reaches(6379, pod, caller=caller, within=False)


def test_versions_are_those_of_the_package_and_of_the_pins() -> None:
    for kind in SCHEMAS:
        spec = the(kind)["spec"]
        assert spec.get("rayClusterConfig", spec)["rayVersion"] == pinned("ray")
    for name, container in containers():
        build = "cuda" if "nvidia.com/gpu" in container["resources"].get("limits", {}) else "cpu"
        assert container["image"] == f"influencerai:{__version__}-{build}", name
    assert the("Job")["metadata"]["name"].endswith(__version__.replace(".", "-"))


def test_gpu_nodes_are_there_and_go_where_gpus_are() -> None:
    pod = pods()["influencerai-training/gpu"]
    [container] = pod["containers"]
    limits, requests = (container["resources"][name]["nvidia.com/gpu"] for name in ("limits", "requests"))
    assert limits == requests == 1
    assert [item["key"] for item in pod["tolerations"]] == ["nvidia.com/gpu"]


def test_every_pod_sees_the_root_and_is_confined() -> None:
    [claim] = [item for item in resources() if item["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["enableServiceLinks"] is False, name  # else a service called influencerai would be read as settings
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container.get("volumeMounts", [])}
            if "ray" in container["name"] or container["name"] == "dispatcher":
                root = mounts["/srv/influencerai"]
                assert root["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"], name
                [models] = [
                    item for item in container["volumeMounts"] if item["mountPath"] == "/srv/influencerai/models"
                ]
                assert (volumes[models["name"]], models["subPath"], models["readOnly"]) == (root, "models", True), name
    for name, container in containers():
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]}), name


def test_disruption_budgets_select_pods_that_are_there() -> None:
    for budget in [item for item in resources() if item["kind"] == "PodDisruptionBudget"]:
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= pod.items() for pod in labels().values()), budget


def test_the_secrets_are_those_that_the_document_makes() -> None:
    text = (ROOT / "docs/run-a-cluster.md").read_text("utf-8")
    commands = [line for block in read_blocks(text) for line in block.commands if "create secret" in line]
    made = {}
    for line in commands:
        words = shlex.split(line)
        keys = {word.removeprefix("--from-literal=").partition("=")[0] for word in words if "from-literal" in word}
        made[words[words.index("generic") + 1]] = keys
    for name, container in containers():
        for item in container.get("env", []):
            secret = item.get("valueFrom", {}).get("secretKeyRef")
            if secret and secret["name"] != the("RayCluster")["metadata"]["name"] and not secret.get("optional"):
                assert secret["key"] in made[secret["name"]], name
