"""Ways to train: the asked one first, then the same batch with less memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from influencerai.domain import LoraConfig
from influencerai.scheduling.placement import Capacity, Device, Node, best_place
from influencerai.scheduling.resource_options import Way, describe_way, ways_to_train


def config(**fields: Any) -> LoraConfig:
    return LoraConfig.parse({"name": "me", "modelName": "sdxl", "resolution": 1024, "batchSize": 4, **fields})


def ways(family: str = "sdxl", asked: LoraConfig | None = None, **fields: Any) -> tuple[Way, ...]:
    return ways_to_train(asked or config(), **{"family": family, "kind": "cuda", "threads": 4, **fields})


def node(gb: float) -> Node:
    return Node(id="n", name="n", cpus=8, memory_gb=64, devices=(Device(name="GPU", memory_gb=gb),))


def said(way: Way, asked: LoraConfig) -> str | None:
    return describe_way(asked, micro_batch=way.micro_batch, gradient_checkpointing=way.gradient_checkpointing)


def test_the_way_that_was_asked_for_is_the_first() -> None:
    for checkpointing in (False, True):
        asked = config(meta={"gradientCheckpointing": checkpointing})
        first, *others = ways(asked=asked)
        assert (first.micro_batch, first.gradient_checkpointing) == (4, checkpointing)
        assert said(first, asked) is None
        assert all(said(other, asked) for other in others)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_each_way_needs_less_than_the_one_before(kind: str) -> None:
    found = ways(kind=kind)
    sizes = [way.needs.device_gb if kind == "cuda" else way.needs.memory_gb for way in found]
    assert sizes == sorted(set(sizes), reverse=True)
    assert [(way.micro_batch, way.gradient_checkpointing) for way in found] == [
        (4, False),
        (4, True),
        (2, True),
        (1, True),
    ]


@pytest.mark.parametrize(("gb", "micro_batch", "checkpointing"), [(80, 4, False), (24, 4, True), (10, 1, True)])
def test_a_smaller_gpu_trains_in_a_slower_way(gb: float, micro_batch: int, checkpointing: bool) -> None:
    found = ways()
    placed = best_place(Capacity([node(gb)]), [way.needs for way in found])
    assert placed is not None
    chosen = found[placed[0]]
    assert (chosen.micro_batch, chosen.gradient_checkpointing) == (micro_batch, checkpointing)
    assert chosen.needs.device_gb <= gb


def test_what_differs_is_said() -> None:
    assert said(ways()[-1], config()) == (
        "To fit into memory it trains with gradient checkpointing and in micro-batches of 1, "
        "which make up the batch of 4."
    )


def test_on_the_cpu_a_job_holds_cores_and_the_nodes_memory() -> None:
    way = ways(kind="cpu", precision="fp32", threads=6, denoiser_parameters=2_000_000)[0]
    assert (way.needs.cpus, way.needs.devices) == (6, 0)
    assert 3 < way.needs.memory_gb < 8


def test_a_family_without_figures_has_one_way() -> None:
    [way] = ways("pixart")
    assert way.needs.device_gb == 8
    assert way.gradient_checkpointing is False


def test_several_gpus_share_each_step() -> None:
    one, two = ways()[0], ways(asked=config(meta={"gpus": 2}))[0]
    assert (two.needs.devices, two.needs.cpus) == (2, 2 * one.needs.cpus)
    assert two.needs.device_gb < one.needs.device_gb  # each has half of the images
    assert two.needs.device_gb == ways(asked=config(batchSize=2))[0].needs.device_gb
    assert two.micro_batch == 4
    assert not ways(asked=config(meta={"gpus": 2}), is_shared=True)[0].needs.is_shared
    assert ways(asked=config(meta={"gpus": 2}), kind="cpu")[0].needs.devices == 0


def test_a_way_survives_being_written_down() -> None:
    for way in ways():
        assert Way.from_document(json.loads(json.dumps(way.to_document()))) == way
