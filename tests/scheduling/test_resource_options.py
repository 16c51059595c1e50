"""Ways to train: the asked one first, then the same batch with less memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from influencerai.domain import LoraConfig
from influencerai.scheduling.placement import Capacity, Device, Node, best_place
from influencerai.scheduling.resource_options import ResourceOption, describe_option, resource_options


def config(**fields: Any) -> LoraConfig:
    return LoraConfig.parse({"name": "me", "modelName": "sdxl", "resolution": 1024, "batchSize": 4, **fields})


def options(family: str = "sdxl", asked: LoraConfig | None = None, **fields: Any) -> tuple[ResourceOption, ...]:
    return resource_options(asked or config(), **{"family": family, "kind": "cuda", "threads": 4, **fields})


def node(gb: float) -> Node:
    return Node(id="n", name="n", cpus=8, memory_gb=64, devices=(Device(name="GPU", memory_gb=gb),))


def said(option: ResourceOption, asked: LoraConfig) -> str | None:
    return describe_option(asked, micro_batch=option.micro_batch, gradient_checkpointing=option.gradient_checkpointing)


def test_the_way_that_was_asked_for_is_the_first() -> None:
    for checkpointing in (False, True):
        asked = config(meta={"gradientCheckpointing": checkpointing})
        first, *others = options(asked=asked)
        assert (first.micro_batch, first.gradient_checkpointing) == (4, checkpointing)
        assert said(first, asked) is None
        assert all(said(other, asked) for other in others)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_each_way_needs_less_than_the_one_before(kind: str) -> None:
    found = options(kind=kind)
    sizes = [option.request.device_gb if kind == "cuda" else option.request.memory_gb for option in found]
    assert sizes == sorted(set(sizes), reverse=True)
    assert [(option.micro_batch, option.gradient_checkpointing) for option in found] == [
        (4, False),
        (4, True),
        (2, True),
        (1, True),
    ]


@pytest.mark.parametrize(("gb", "micro_batch", "checkpointing"), [(80, 4, False), (24, 4, True), (10, 1, True)])
def test_a_smaller_gpu_trains_in_a_slower_way(gb: float, micro_batch: int, checkpointing: bool) -> None:
    found = options()
    placed = best_place(Capacity([node(gb)]), [option.request for option in found])
    assert placed is not None
    chosen = found[placed[0]]
    assert (chosen.micro_batch, chosen.gradient_checkpointing) == (micro_batch, checkpointing)
    assert chosen.request.device_gb <= gb


def test_what_differs_is_said() -> None:
    assert said(options()[-1], config()) == (
        "To fit into memory it trains with gradient checkpointing and in micro-batches of 1, "
        "which make up the batch of 4."
    )


def test_on_the_cpu_a_job_holds_cores_and_the_nodes_memory() -> None:
    option = options(kind="cpu", precision="fp32", threads=6, denoiser_parameters=2_000_000)[0]
    assert (option.request.cpus, option.request.devices) == (6, 0)
    assert 3 < option.request.memory_gb < 8


def test_a_family_without_figures_has_one_way() -> None:
    [option] = options("pixart")
    assert option.request.device_gb == 8
    assert option.gradient_checkpointing is False


def test_several_gpus_share_each_step() -> None:
    one, two = options()[0], options(asked=config(meta={"gpus": 2}))[0]
    assert (two.request.devices, two.request.cpus) == (2, 2 * one.request.cpus)
    assert two.request.device_gb < one.request.device_gb  # each has half of the images
    assert two.request.device_gb == options(asked=config(batchSize=2))[0].request.device_gb
    assert two.micro_batch == 4
    assert not options(asked=config(meta={"gpus": 2}), is_shared=True)[0].request.is_shared
    assert options(asked=config(meta={"gpus": 2}), kind="cpu")[0].request.devices == 0


def test_a_way_survives_being_written_down() -> None:
    for option in options():
        assert ResourceOption.from_document(json.loads(json.dumps(option.to_document()))) == option
