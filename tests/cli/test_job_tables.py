"""How jobs read on the terminal: their stage, why they wait, and what they train."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from influencerai.cli.job_tables import config_of, progress_of, waiting_of
from influencerai.domain.job import Job

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PROGRESS = {"progress": {"currentEpoch": 1, "totalEpochs": 2, "step": 5, "totalSteps": 10}}


def job(**fields: Any) -> Job:
    common = {
        "id": "1",
        "tenant_id": "ann",
        "type": "lora-training",
        "payload": {},
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Job(**common, **{"status": "running", **fields})


@pytest.mark.parametrize(
    ("stage", "shown"),
    [("loading", "loading"), ("exporting", "exporting"), ("training", "epoch 1/2, 50%"), (None, "epoch 1/2, 50%")],
)
def test_a_running_job_shows_its_stage_outside_of_training(stage: str | None, shown: str) -> None:
    assert progress_of(job(stage=stage, result=PROGRESS)) == shown


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"waiting": "No node has 2 cores.", "queue_position": 1}, "No node has 2 cores (number 1 in the queue)"),
        ({"waiting": "No node has 2 cores."}, "No node has 2 cores."),
        ({"queue_position": 3}, "a worker (number 3 in the queue)"),
    ],
)
def test_a_waiting_job_says_why_in_one_sentence(fields: dict[str, Any], shown: str) -> None:
    assert waiting_of(job(status="pending", **fields)) == shown


def test_a_job_names_its_configuration_where_the_server_says_it() -> None:
    assert config_of(job(lora_config_name="Portrait", model_name="sd15")) == "Portrait (sd15)"
    assert config_of(job()) == ""
