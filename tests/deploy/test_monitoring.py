"""deploy/monitoring: every expression can be parsed and asks for metrics that a real server has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from influencerai.scheduling.placement import Device, Node
from influencerai.settings import Settings
from influencerai.store.nodes import NodeState
from tests.deploy.manifests import ROOT, load
from tests.serve.running import running

pytestmark = pytest.mark.anyio
FOLDER = ROOT / "deploy" / "monitoring"
_METRIC = re.compile(r"\binfluencerai_\w+")


def rules() -> list[dict[str, Any]]:
    [document] = load("deploy/monitoring/alerts.yml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


async def test_every_expression_asks_for_what_a_server_has(tmp_path: Path, databases: Any) -> None:
    async with running(Settings(root=tmp_path, database_url=databases.new("sqlite"))) as api:
        await api.failed_job()
        gpu = Device(name="H200", memory_gb=141)
        node = NodeState(node=Node(id="a" * 56, name="gpu-1", cpus=8, memory_gb=64, devices=(gpu,)))
        async with api.service.store.write() as transaction:
            await transaction.nodes.note([node])
        text = (await api.client.get("/metrics")).text
    shown = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    asked: set[str] = set()
    for expression in expressions():
        promql_parser.parse(expression)  # raises where Prometheus would refuse it
        asked |= set(_METRIC.findall(expression))
    assert asked
    assert asked <= shown
    unused = {name for name in shown if not name.endswith(("_created", "_sum", "_count", "_bucket"))} - asked
    assert unused <= {"influencerai_node_cpus", "influencerai_requests_total"} | asked


def test_alerts_have_what_people_need() -> None:
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert re.fullmatch(r"InfluencerAI\w+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


def test_the_dashboards_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in panels()
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_prometheus_scrapes_with_the_key_for_metrics() -> None:
    [document] = load("deploy/monitoring/prometheus.yml")
    [scrape] = document["scrape_configs"]
    assert scrape["metrics_path"] == "/metrics"
    assert scrape["authorization"]["credentials_file"]
    assert document["rule_files"] == ["alerts.yml"]
    assert f'job="{scrape["job_name"]}"' in next(rule["expr"] for rule in rules() if "up{" in rule["expr"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_files(tmp_path: Path) -> None:
    for name in ("alerts.yml", "prometheus.yml"):
        text = (FOLDER / name).read_text().replace("/etc/prometheus/influencerai.key", str(tmp_path / "key"))
        (tmp_path / name).write_text(text)
    (tmp_path / "key").write_text("key")
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True)
