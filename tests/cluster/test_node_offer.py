"""What a machine that joins a cluster lacks for the smallest training."""

from __future__ import annotations

from typing import Any

import pytest

from influencerai.cluster.joining import NodeOffer, lack_of


@pytest.mark.parametrize(
    ("offer", "lack"),
    [
        ({"cpus": 1, "gpus": 1, "pretends": True}, "1 core of 2"),
        ({"cpus": 2, "gpus": 1, "memory_gb": 2.0}, "2 GB of memory of 3.5"),
        ({"cpus": 4, "gpus": 1, "memory_gb": 8.0, "gpu_memory_gb": 0.5}, "0.5 GB of GPU memory of 1"),
        ({"cpus": 0, "gpus": 0, "memory_gb": 8.0}, "0 cores of 1"),
        ({"cpus": 2, "gpus": 1, "memory_gb": 8.0}, None),
        ({"cpus": 1, "gpus": 0, "memory_gb": 4.0}, None),
    ],
)
def test_a_machine_that_can_take_no_training_is_told_at_once(offer: dict[str, Any], lack: str | None) -> None:
    assert lack_of(NodeOffer(**offer)) == lack
