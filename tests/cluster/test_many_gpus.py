"""One job on several GPUs of a node: what one device makes of it, to rounding, whoever dies."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load

from tests.cluster.site import Site
from tests.worker.workplace import is_alive, strike

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.xdist_group("ray"),
]
ROUNDING = 1e-3
"""Of a tensor's norm."""


@pytest.mark.campaign
def test_two_gpus_train_what_one_does(alone: Site) -> None:
    alone.add_node("box", cpus=4, gpus=2)
    alone.staff(1)
    alone.wait_for_nodes("box")
    id = alone.submit(epochs=40, batchSize=2, count=4, meta={"gpus": 2})
    alone.wait_for_step(id, 8)
    [attempt] = alone.active()
    assert attempt.allocation.devices == {0: 1.0, 1: 1.0}
    processes = alone.trainings(id)
    assert len(processes) == 2
    strike(max(processes))  # the one that follows
    alone.wait(id)
    alone.check(id)
    assert alone.outcomes(id) == ["broken", "completed"]
    assert alone.history(id).attempts[-1]["devices"] == 2.0
    assert not any("gpus" in text for text in (alone.job(id).result or {})["warnings"])
    found, expected = alone.files(id), alone.undisturbed(id)
    assert found.keys() == expected.keys()
    for name in found:
        ours, theirs = load(found[name]), load(expected[name])
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            difference = torch.linalg.vector_norm(tensor.float() - theirs[key].float())
            assert difference <= ROUNDING * max(1e-6, float(torch.linalg.vector_norm(theirs[key].float()))), key
    alone.until(lambda: not any(is_alive(pid) for pid in processes), seconds=5)
