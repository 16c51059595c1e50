from __future__ import annotations

from typing import Any

import pytest

from influencerai.domain import ExecutionPlan
from influencerai.training_plan.cpu_time import cpu_seconds, cpu_time_warnings


def plan(**changes: Any) -> ExecutionPlan:
    fields: dict[str, Any] = {"device": "cpu", "device_name": "CPU", "build": "", "threads": 2, "micro_batch": 1}
    return ExecutionPlan(**{**fields, "precision": "fp32", **changes})


def test_sdxl_on_a_cpu_takes_days_and_the_warning_says_how_many() -> None:
    (text,) = cpu_time_warnings(plan(), family="sdxl", resolution=1024, images=2000)
    assert "No GPU is used: this training takes about 5 days on 2 CPU threads" in text
    (text,) = cpu_time_warnings(plan(), family="sd15", resolution=512, images=2000)
    assert "about 14 hours" in text


def test_a_short_training_a_gpu_and_an_unknown_family_get_no_warning() -> None:
    assert cpu_time_warnings(plan(), family="sd15", resolution=512, images=100) == []
    assert cpu_time_warnings(plan(device="cuda"), family="sdxl", resolution=1024, images=2000) == []
    assert cpu_time_warnings(plan(), family="other", resolution=1024, images=10**9) == []


def test_work_grows_with_pixels_and_parameters_and_is_shared_by_threads() -> None:
    def seconds(**changes: Any) -> float:
        fields: dict[str, Any] = {"family": "sd15", "resolution": 512, "images": 10, "threads": 1}
        found = cpu_seconds(**fields | changes)
        assert found is not None
        return found

    assert seconds(resolution=1024) == pytest.approx(4 * seconds())
    assert seconds(threads=4) == pytest.approx(seconds() / 4)
    assert seconds(denoiser_parameters=8_595_209) == pytest.approx(seconds() / 100, rel=1e-3)
