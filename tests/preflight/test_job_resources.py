"""What jobs need: by their configuration and base model, and by what an earlier attempt has fixed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from influencerai.demo.characters import MODEL_ID
from influencerai.preflight.job_resources import options_on, plan_resources
from influencerai.scheduling.placement import Allocation, Capacity, Device, Node, best_place
from influencerai.settings import Settings
from tests.training_runs import make_config


def resources(*, plan: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **config: Any) -> str:
    made = make_config(config.pop("model", MODEL_ID), **{"name": "x", "batchSize": 4, **config})
    return plan_resources(made, Settings(threads=3, **(settings or {})), plan=plan)


def frozen(kind: str | None, **plan: Any) -> dict[str, Any]:
    executed = {"device": "cpu", "threads": 7, "precision": "fp32", "worldSize": 1, "microBatch": 4}
    accelerator = plan.pop("accelerator", None)
    return {
        "spec": {"plan": {**executed, "gradientCheckpointing": False, **plan}},
        "kind": kind,
        "accelerator": accelerator,
    }


def test_a_cluster_with_gpus_trains_on_them_alone() -> None:
    found = resources()
    on_gpus, on_cores = options_on(found, has_gpus=True), options_on(found, has_gpus=False)
    assert {option.request.devices for option in on_gpus} == {1}
    assert {(option.request.devices, option.request.cpus) for option in on_cores} == {(0, 3)}


@pytest.mark.parametrize(("device", "kinds"), [("cpu", {"cpu"}), ("cuda", {"cuda"}), ("auto", {"cuda", "cpu"})])
def test_the_device_setting_decides_what_is_used(device: str, kinds: set[str]) -> None:
    found = resources(settings={"device": device})
    assert json.loads(found).keys() == kinds
    assert options_on(found, has_gpus=True)
    assert options_on(found, has_gpus=False)


def test_the_base_models_size_decides_the_memory() -> None:
    small = options_on(resources(), has_gpus=True)[0].request
    unknown = options_on(resources(model="nobody/knows-this"), has_gpus=True)[0].request
    assert small.device_gb < 2 < unknown.device_gb


def test_machines_that_train_several_jobs_share_their_cores() -> None:
    assert options_on(resources(settings={"workers": 3}), has_gpus=False)[0].request.cpus == 1


def test_a_plan_is_kept() -> None:
    [option] = options_on(resources(plan=frozen("cuda", microBatch=1, gradientCheckpointing=True)), has_gpus=False)
    assert (option.micro_batch, option.gradient_checkpointing, option.request.devices) == (1, True, 1)
    [option] = options_on(resources(plan=frozen(None)), has_gpus=True)
    assert (option.micro_batch, option.request.devices, option.request.cpus) == (4, 0, 7)
    [option] = options_on(resources(plan=frozen("cuda", worldSize=2), meta={"gpus": 2}), has_gpus=True)
    assert option.request.devices == 2


def test_gpus_are_shared_where_that_is_allowed_and_the_need_is_known() -> None:
    shared = {"share_gpus": True}
    assert options_on(resources(settings=shared), has_gpus=True)[0].request.is_shared
    assert not options_on(resources(), has_gpus=True)[0].request.is_shared
    assert not options_on(resources(model="nobody/knows-this", settings=shared), has_gpus=True)[0].request.is_shared


def test_a_run_goes_on_on_the_gpus_that_it_began_on_where_there_are_some() -> None:
    first, second = options_on(resources(plan=frozen("cuda", accelerator="H100")), has_gpus=True)
    assert (first.request.accelerator, second.request.accelerator) == ("H100", None)
    assert first.request.device_gb == second.request.device_gb
    both = [
        Node(id=name, name=name, cpus=8, memory_gb=64, devices=(Device(name=name, memory_gb=80),))
        for name in ("A100", "H100")
    ]
    taken = Allocation(node="H100", cpus=2, memory_gb=8, devices={0: 1.0})
    options = [option.request for option in (first, second)]
    assert best_place(Capacity(both, [taken]), options) is None
    placed = best_place(Capacity(both), options)
    assert placed is not None
    assert placed[1].node == "H100"
    placed = best_place(Capacity(both[:1]), options)
    assert placed is not None
    assert placed[1].node == "A100"
