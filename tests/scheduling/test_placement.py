"""Places: by need, the tightest first, and never more than there is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influencerai.scheduling.placement import Allocation, Capacity, Device, Node, ResourceRequest, best_place

SMALL, LARGE = Device(name="RTX 4090", memory_gb=24), Device(name="NVIDIA H100 80GB", memory_gb=80)


def node(id: str, *devices: Device, cpus: float = 16, memory_gb: float = 128) -> Node:
    return Node(id=id, name=id, cpus=cpus, memory_gb=memory_gb, devices=devices)


def gpu(gb: float, *, count: int = 1, **fields: object) -> ResourceRequest:
    return ResourceRequest(**{"cpus": 2, "memory_gb": 8, "devices": count, "device_gb": gb, **fields})  # type: ignore[arg-type]


def test_a_job_goes_to_the_smallest_gpu_that_fits() -> None:
    capacity = Capacity([node("large", LARGE), node("small", SMALL), node("none")])
    assert [placed.node for placed in map(capacity.place, [gpu(12), gpu(12), gpu(12)]) if placed] == ["small", "large"]


def test_a_job_for_the_cpu_leaves_gpus_alone() -> None:
    capacity = Capacity([node("gpu", LARGE), node("cpu")])
    placed = capacity.place(ResourceRequest(cpus=4, memory_gb=4))
    assert placed is not None
    assert (placed.node, dict(placed.devices)) == ("cpu", {})


def test_shares_of_one_gpu_are_packed_and_whole_ones_kept() -> None:
    capacity = Capacity([node("a", LARGE), node("b", LARGE)])
    shared = [capacity.place(gpu(20, is_shared=True)) for _ in range(4)]
    assert {placed.node for placed in shared if placed} == {"a"}
    assert all(placed and placed.devices == {0: 0.25} for placed in shared)
    whole = capacity.place(gpu(70))
    assert whole is not None
    assert (whole.node, whole.devices) == ("b", {0: 1.0})
    assert capacity.place(gpu(20, is_shared=True)) is None


@pytest.mark.parametrize(("gb", "share"), [(1, 0.25), (20, 0.25), (20.1, 0.5), (60, 0.75), (61, 1), (80, 1)])
def test_a_share_is_as_many_quarters_as_are_needed(gb: float, share: float) -> None:
    assert gpu(gb, is_shared=True).share_of(LARGE) == share
    assert gpu(gb).share_of(LARGE) == 1


def test_an_accelerator_that_is_asked_for_is_had_or_waited_for() -> None:
    capacity = Capacity([node("small", SMALL), node("large", LARGE)])
    placed = capacity.place(gpu(10, accelerator="h100"))
    assert placed is not None
    assert placed.node == "large"
    assert capacity.place(gpu(10, accelerator="h100")) is None
    assert capacity.could_ever(gpu(10, accelerator="h100"))
    assert not capacity.could_ever(gpu(10, accelerator="a100"))


def test_what_is_held_already_is_not_free() -> None:
    held = [Allocation(node="a", cpus=15, memory_gb=1), Allocation(node="gone", cpus=1, memory_gb=1)]
    assert Capacity([node("a", LARGE)], held).place(gpu(10)) is None
    assert (
        Capacity([node("a", LARGE)], [Allocation(node="a", cpus=1, memory_gb=1, devices={0: 1.0})]).place(gpu(1))
        is None
    )


def test_a_fallback_is_for_what_no_node_could_ever_train() -> None:
    busy = Capacity([node("a", SMALL)], [Allocation(node="a", cpus=1, memory_gb=1, devices={0: 1.0})])
    assert best_place(busy, [gpu(20), gpu(10)]) is None, "it waits for the way that was asked for"
    idle = Capacity([node("a", SMALL)])
    placed = best_place(idle, [gpu(40), gpu(20), gpu(10)])
    assert placed is not None
    assert placed[0] == 1
    assert best_place(idle, [gpu(90)]) is None


def test_a_reserved_node_is_left_to_who_waits_for_it() -> None:
    capacity = Capacity(
        [node("a", LARGE, LARGE), node("b", LARGE, LARGE)],
        [
            Allocation(node="a", cpus=1, memory_gb=1, devices={0: 1.0, 1: 1.0}),
            Allocation(node="b", cpus=1, memory_gb=1, devices={0: 1.0}),
        ],
    )
    assert capacity.place(gpu(70, count=2)) is None
    assert capacity.reserve(gpu(70, count=2)) == "b"
    assert capacity.place(gpu(70)) is None


_NODES = st.lists(
    st.builds(
        lambda devices, cpus, memory: (devices, cpus, memory),
        st.lists(st.sampled_from([SMALL, LARGE]), max_size=4),
        st.integers(1, 32),
        st.integers(1, 256),
    ),
    min_size=1,
    max_size=5,
)
_NEEDS = st.builds(
    ResourceRequest,
    cpus=st.integers(1, 8),
    memory_gb=st.floats(0, 64),
    devices=st.integers(0, 4),
    device_gb=st.floats(0, 80),
    is_shared=st.booleans(),
)


@settings(deadline=None)
@given(machines=_NODES, wanted=st.lists(_NEEDS, max_size=40))
def test_nothing_is_ever_held_twice(
    machines: list[tuple[list[Device], int, int]], wanted: list[ResourceRequest]
) -> None:
    nodes = [
        node(str(index), *devices, cpus=cpus, memory_gb=memory)
        for index, (devices, cpus, memory) in enumerate(machines)
    ]
    capacity = Capacity(nodes)
    held: list[tuple[ResourceRequest, Allocation]] = []
    for request in wanted:
        placed = capacity.place(request)
        if placed is not None:
            held.append((request, placed))
        assert placed is None or capacity.could_ever(request)
    for machine in nodes:
        mine = [(request, allocation) for request, allocation in held if allocation.node == machine.id]
        assert sum(allocation.cpus for _, allocation in mine) <= machine.cpus + 1e-6
        assert sum(allocation.memory_gb for _, allocation in mine) <= machine.memory_gb + 1e-6
        for index, device in enumerate(machine.devices):
            shares = [
                (request, allocation.devices[index]) for request, allocation in mine if index in allocation.devices
            ]
            assert sum(share for _, share in shares) <= 1 + 1e-6
            assert sum(request.device_gb for request, _ in shares) <= device.memory_gb + 1e-6
        assert all(len(allocation.devices) == request.devices for request, allocation in mine)
    assert not capacity.is_overcommitted
    assert not Capacity(nodes, [allocation for _, allocation in held]).is_overcommitted
