"""What an idle node lacks for a job, and what it can take at all."""

from __future__ import annotations

import pytest

from influencerai.scheduling.placement import Device, Node, ResourceRequest
from influencerai.scheduling.shortfall import LEAST_ON_GPU, least_request, never_starts, ready_for, shortfall

T4, H100 = Device(name="Tesla T4", memory_gb=16), Device(name="NVIDIA H100", memory_gb=80)
WANTS = ResourceRequest(cpus=2, memory_gb=8, devices=1, device_gb=24)


def node(name: str = "a", *, cpus: float = 8, memory_gb: float = 32, devices: tuple[Device, ...] = ()) -> Node:
    return Node(id=name, name=name, cpus=cpus, memory_gb=memory_gb, devices=devices)


@pytest.mark.parametrize(
    ("there", "wanted", "lack"),
    [
        (node(devices=(H100,)), WANTS, None),
        (node(), WANTS, "no GPU"),
        (node(cpus=1), WANTS, "no GPU, 1 core of 2"),
        (node(cpus=1, memory_gb=4, devices=(H100,)), WANTS, "1 core of 2, 4 GB of memory of 8"),
        (node(devices=(T4, T4)), WANTS, "16 GB of GPU memory of 24"),
        (node(devices=(H100, T4)), ResourceRequest(devices=2, device_gb=24), "1 of 2 GPUs"),
        (node(devices=(H100,)), ResourceRequest(devices=4, device_gb=24), "1 of 4 GPUs"),
        (node(devices=(T4,)), ResourceRequest(devices=1, accelerator="H100"), "no GPU of the kind H100"),
    ],
)
def test_a_shortfall_names_each_need_that_fails(there: Node, wanted: ResourceRequest, lack: str | None) -> None:
    assert shortfall(there, wanted) == lack


def test_a_job_that_can_never_start_hears_what_each_node_lacks() -> None:
    nodes = [node("a", cpus=1, devices=(H100,)), node("b"), node("c")]
    assert never_starts(nodes, [ResourceRequest(cpus=9), WANTS]) == (
        "No node has a GPU with 24 GB, 2 cores and 8 GB of memory, so the job can never start here. "
        "Node a: 1 core of 2; Nodes b, c: no GPU."
    )


def test_many_nodes_are_named_in_short() -> None:
    text = never_starts([node(str(number)) for number in range(100)], [WANTS])
    assert text.endswith("Nodes 0, 1, 2, 3, 4 and 95 more: no GPU.")


def test_a_node_is_ready_for_what_it_can_take() -> None:
    assert ready_for(node(devices=(T4, T4)), LEAST_ON_GPU) == "trainings on 2 GPUs with 16 GB"
    assert ready_for(node(cpus=1, devices=(T4,)), LEAST_ON_GPU) == "no training: 1 core of 2"
    cores = least_request([node()], threads=4)
    assert ready_for(node(), cores) == "trainings on 8 cores"
    assert ready_for(node(cpus=2), cores) == "no training: 2 cores of 4"
    assert least_request([node(), node(devices=(T4,))], threads=4) == LEAST_ON_GPU
