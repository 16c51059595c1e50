"""A training from the first picture to the file, by the public client, a real server and a real worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from influencerai import InfluencerAIClient, TrainingError
from influencerai.demo.characters import MODEL_ID
from influencerai.domain.job_log import JobEvent
from tests.client.both import KINDS, opened
from tests.servers import serve
from tests.worker.workplace import write_pictures

pytestmark = pytest.mark.slow


def test_a_training_by_either_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = write_pictures(tmp_path / "mine", count=2)
    with serve(tmp_path / "root", runner="inline") as server:
        for kind in KINDS:
            with opened(kind, server.url, tenant_id=kind, on_warning=lambda text: None) as client:
                train(client, pictures, to=tmp_path / kind, path=f"data/datasets/{kind}")
                assert f"{kind}: training 4/4" in capsys.readouterr().err


def train(client: InfluencerAIClient, pictures: Path, *, to: Path, path: str) -> None:
    dataset = client.datasets.create(path=path, meta={"triggerWord": "ohwx"})
    client.datasets.upload(dataset.id, pictures)
    config = client.lora_configs.create(
        name=to.name, model_name=MODEL_ID, resolution=128, epochs=2, network_dim=4, network_alpha=2
    )
    assert client.jobs.dry_run(dataset_id=dataset.id, lora_config_id=config.id)["ok"]
    job = client.jobs.create(dataset_id=dataset.id, lora_config_id=config.id)
    seen: list[JobEvent] = []
    ended = client.jobs.wait_for_completion(job.id, on_progress=seen.append, timeout=240, show_progress=True)
    assert ended.result is not None
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert {"status", "stage", "checkpoint"} <= {event.type for event in seen}
    assert [attempt.outcome for attempt in ended.attempts] == ["completed"]
    assert [metric.step for metric in client.jobs.metrics(job.id)] == [1, 2, 3, 4]
    files = client.jobs.download(job.id, to=to)
    assert [file.name for file in files] == ended.result["checkpoints"]
    assert files[-1].stat().st_size > 1000

    broken = client.lora_configs.create(name="Broken", model_name="no/such-model", network_alpha=2, network_dim=4)
    job = client.jobs.create(dataset_id=dataset.id, lora_config_id=broken.id)
    with pytest.raises(TrainingError, match="no/such-model"):
        client.jobs.wait_for_completion(job.id, timeout=120)
