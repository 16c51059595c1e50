"""The fields of KubeRay's resources that our manifests use, as KubeRay 1.7 has them; its own files are a megabyte each.

A field that is not here is an error: look it up in KubeRay's RayCluster and RayService, then add it. What is inside of
a pod is Kubernetes' own and checked by its schema.
"""

from __future__ import annotations

from typing import Any

_COUNT = {"type": "integer", "minimum": 0}
_NAMES = {"type": "object", "additionalProperties": {"type": "string"}}
_DNS_LABEL = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


_POD = _object(("spec",), metadata=_object(labels=_NAMES, annotations=_NAMES), spec={"type": "object"})
_GROUP = {"rayStartParams": _NAMES, "template": _POD}
_CLUSTER = _object(
    ("headGroupSpec", "rayVersion"),  # a token needs the version
    rayVersion={"type": "string"},
    authOptions=_object(mode={"enum": ["disabled", "token"]}),
    headGroupSpec=_object(("template",), **_GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            ("groupName", "template", "minReplicas", "maxReplicas"),  # the last two where nothing scales
            groupName={"type": "string", "pattern": _DNS_LABEL},
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            **_GROUP,
        ),
    },
)
_SERVICE = _object(
    ("rayClusterConfig",),
    excludeHeadPodFromServeSvc={"type": "boolean"},
    upgradeStrategy=_object(type={"enum": ["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]}),
    serveConfigV2={"type": "string"},
    rayClusterConfig=_CLUSTER,
)


def _resource(kind: str, spec: dict[str, Any], *, longest_name: int) -> dict[str, Any]:
    name = {"type": "string", "maxLength": longest_name, "pattern": _DNS_LABEL}
    return _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_object(("name",), name=name, annotations=_NAMES, labels=_NAMES),
        spec=spec,
    )


SCHEMAS = {
    "RayCluster": _resource("RayCluster", _CLUSTER, longest_name=53),
    "RayService": _resource("RayService", _SERVICE, longest_name=47),
}
"""JSON schemas by kind."""
