"""How jobs end: cancelled, by a mistake of their users, when their budget is spent; and what changes nothing."""

from __future__ import annotations

import shutil
import signal
import sys

import pytest
from PIL import Image

from influencerai.errors import ConflictError
from influencerai.train.runs.training_state import list_states
from tests.worker.workplace import (
    TENANT,
    Workplace,
    in_one_process,
    is_alive,
    on_both,
    on_sqlite,
    strike,
    write_pictures,
)

pytestmark = [in_one_process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


@pytest.mark.slow
@on_both
def test_a_cancelled_training_saves_its_state_and_a_retry_goes_on(place: Workplace) -> None:
    id = place.submit()
    place.wait_for_step(id, 8)
    child = place.child(id)
    assert place.cancel(id).cancel_requested
    assert place.cancel(id).cancel_requested, "asking twice is asking once"
    job = place.wait(id)
    history = place.check(id)
    assert place.outcomes(id) == ["cancelled"]
    assert [event.type for event in history.events].count("cancel") == 1
    assert job.result is not None
    assert (job.status, job.result["error"], job.result["cancelled"]) == ("failed", "Cancelled", True)
    assert (job.result["code"], bool(job.result["remedy"])) == ("cancelled", True)
    published = [int(name.split("-")[-1].split(".")[0]) for name in job.result["partialCheckpoints"]]
    assert published[-2:] == [job.result["epoch"] - 2, job.result["epoch"] - 1], "the last two complete epochs"
    place.until(lambda: not is_alive(child), seconds=5)
    stopped_at = place.steps(id)
    assert list_states(place.run_dir(id))[-1].name == f"state-{stopped_at:08}.safetensors"
    assert place.cancel(id).result == job.result

    again = place.retry(id)
    place.wait(again)
    place.check_undisturbed(again, whole=False)
    steps = [event.data["step"] for event in place.history(again).events if event.type == "progress"]
    assert min(steps) > stopped_at
    assert place.job(again).retry_of == id


def test_a_job_that_waits_is_cancelled_at_once(alone: Workplace) -> None:
    id = alone.submit()
    job = alone.cancel(id)
    assert job.result is not None
    assert (job.status, job.result["cancelled"], job.started_at) == ("failed", True, None)
    assert alone.cancel(id) == job
    alone.check(id)
    assert alone.outcomes(id) == []


@pytest.mark.campaign
@on_sqlite
def test_a_job_is_cancelled_while_it_encodes(place: Workplace) -> None:
    write_pictures(place.root / "data/datasets/all", count=20)
    for picture in (place.root / "data/datasets/all").glob("*.png"):
        with Image.open(picture) as image:
            image.rotate(3).save(picture)  # so that the cache knows none of them
    id = place.submit(dataset="data/datasets/all", epochs=1)
    place.until(lambda: "encoding images" in stages(place, id), id=id, pause=0.005)
    strike(place.child(id), signal.SIGSTOP)  # so that it is still at that when the worker hears of it
    assert place.steps(id) == 0
    place.cancel(id)
    place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["cancelled"]
    assert place.steps(id) == 0


@pytest.mark.slow
@on_sqlite
def test_a_training_that_does_not_react_is_killed_after_the_grace(place: Workplace) -> None:
    id = place.submit()
    place.wait_for_step(id, 8)
    child = place.child(id)
    strike(child, signal.SIGSTOP)
    place.cancel(id)
    job = place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["cancelled"]
    assert not is_alive(child)
    assert job.result is not None
    assert job.result["cancelled"]


@pytest.mark.slow
@on_both
def test_a_mistake_of_the_user_ends_the_job_at_once(place: Workplace) -> None:
    (place.root / "data/datasets/empty").mkdir(parents=True, exist_ok=True)
    id = place.submit(dataset="data/datasets/empty", count=0)
    job = place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["failed"]
    assert job.result is not None
    assert "data/datasets/empty" in job.result["error"]
    [attempt] = place.ask(lambda service: service.jobs.detail(TENANT, id)).attempts
    assert (job.result["code"], attempt.code, attempt.remedy) == ("dataset", "dataset", job.result["remedy"])
    assert (job.result["epoch"], job.result["partialCheckpoints"]) == (0, [])


@pytest.mark.campaign
@on_sqlite
def test_an_unknown_model_ends_the_job_at_once(place: Workplace) -> None:
    id = place.submit(modelName="nobody/nothing")
    job = place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["failed"]
    assert job.result is not None
    assert "nobody/nothing" in job.result["error"]


@pytest.mark.campaign
@on_sqlite
def test_a_loss_that_is_no_number_ends_the_job_with_its_last_epochs(place: Workplace) -> None:
    meta = {"optimizer": "Lion", "lrScheduler": "constant", "maxGradNorm": 0.0, "warmupRatio": 0.0}
    id = place.submit(learningRate=1.0, epochs=50, meta=meta)
    job = place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["failed"]
    assert job.result is not None
    assert "not a number" in job.result["error"] or "float16" in job.result["error"]
    assert job.result["epoch"] >= 1
    assert job.result["partialCheckpoints"] == [
        file.name for file in place.history(id).artifacts if file.name in job.result["partialCheckpoints"]
    ]


@pytest.mark.campaign
@on_sqlite
def test_files_of_which_only_the_last_are_kept_are_listed_no_more(place: Workplace) -> None:
    id = place.submit(meta={"keepLastN": 1, "saveEveryNEpochs": 1})
    place.wait(id)
    history = place.check_undisturbed(id)
    names = [file.name for file in history.artifacts]
    assert names == ["test-run-epoch-11.safetensors", "test-run-final.safetensors"]
    assert history.job.result is not None
    assert history.job.result["checkpoints"] == names


@pytest.mark.slow
@on_both
def test_a_training_that_is_killed_again_and_again_is_given_up(place: Workplace) -> None:
    id = place.submit()
    for attempt in range(1, 4):
        place.wait_for_attempt(id, attempt)
        place.wait_for_step(id, place.steps(id) + 1)
        strike(place.child(id))
        place.until(lambda: place.job(id).status != "running", id=id)
    job = place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["broken"] * 3
    assert job.result is not None
    assert job.result["error"].startswith("Given up after 3 attempts that ended without your fault")


@pytest.mark.campaign
@on_sqlite
def test_a_job_whose_workers_are_lost_again_and_again_is_given_up(place: Workplace) -> None:
    id = place.submit(epochs=100)
    for attempt in range(1, 4):
        place.staff(2)
        place.wait_for_attempt(id, attempt)
        strike(place.holder(id))
        place.wait_for_outcome(id, attempt)
    job = place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["lost"] * 3
    assert job.result is not None
    assert job.result["error"].endswith("the last one so: The worker was lost.")


@pytest.mark.campaign
def test_a_job_that_its_workers_give_back_costs_nothing(alone: Workplace) -> None:
    id = alone.submit(epochs=24)
    returns = alone.settings.broken_attempts + 1
    for _ in range(returns):
        alone.staff(1)
        alone.wait_for_step(id, alone.steps(id) + 1)
        [worker] = alone.workers
        worker.terminate()
        assert worker.wait(60) == 0
        assert alone.job(id).status == "pending"
        assert alone.job(id).waiting == "It waits for a free worker."
    alone.staff(1)
    alone.wait(id)
    alone.check_undisturbed(id)
    assert alone.outcomes(id) == ["released"] * returns + ["completed"]


@pytest.mark.slow
@on_sqlite
def test_what_changes_after_the_first_claim_changes_nothing(place: Workplace) -> None:
    folder = "data/datasets/edited"
    id = place.submit(dataset=folder)
    stored = place.job(id).payload
    place.wait_for_step(id, 4)
    for picture in (place.root / folder).glob("*.png"):
        with picture.open("r+b") as file:
            file.write(b"edited in place")
        picture.with_suffix(".txt").write_text("another caption")
    strike(place.child(id))
    place.wait_for_attempt(id, 2)
    place.wait_for_step(id, 6)
    shutil.rmtree(place.root / folder)
    with pytest.raises(Exception, match="Cannot delete"):
        place.ask(lambda service: service.datasets.delete(TENANT, str(stored["datasetId"])))
    with pytest.raises(Exception, match="Cannot delete"):
        place.ask(lambda service: service.lora_configs.delete(TENANT, str(stored["loraConfigId"])))
    strike(place.child(id))
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["broken", "broken", "completed"]


@pytest.mark.campaign
@on_sqlite
def test_a_job_is_retried_though_its_dataset_and_configuration_are_gone(place: Workplace) -> None:
    place.forget()
    folder = "data/datasets/gone"
    id = place.submit(dataset=folder)
    payload = place.job(id).payload
    place.wait_for_step(id, 4)
    place.cancel(id)
    place.wait(id)
    place.ask(lambda service: service.datasets.delete(TENANT, str(payload["datasetId"])))
    place.ask(lambda service: service.lora_configs.delete(TENANT, str(payload["loraConfigId"])))
    shutil.rmtree(place.root / folder)
    place.forget()
    again = place.retry(id)
    place.wait(again)
    place.check_undisturbed(again, whole=False)


@pytest.mark.slow
@on_sqlite
def test_a_job_waits_for_its_images(place: Workplace) -> None:
    folder = f"data/datasets/late-{place.mark}"
    id = place.submit(dataset=folder, count=0)
    place.until(lambda: "dataset is pending" in (place.job(id).waiting or ""), id=id)
    assert place.outcomes(id) == []
    staged = write_pictures(place.root / "staged", count=2)
    staged.rename(place.root / folder)
    place.wait(id)
    place.check_undisturbed(id)


@pytest.mark.campaign
@on_sqlite
def test_a_job_whose_images_never_come_fails_with_the_name_of_the_folder(place: Workplace) -> None:
    id = place.submit(dataset="data/datasets/never", count=0)
    job = place.wait(id)
    place.check(id)
    assert place.outcomes(id) == ["failed"]
    assert job.result is not None
    assert "data/datasets/never" in job.result["error"]
    waited = (job.finished_at - job.created_at).total_seconds() if job.finished_at else 0
    assert waited >= place.settings.dataset_wait_seconds - 1


@pytest.mark.campaign
@on_sqlite
def test_an_ended_job_is_not_cancelled(place: Workplace) -> None:
    id = place.submit()
    place.wait(id)
    with pytest.raises(ConflictError, match="it is completed"):
        place.cancel(id)
    place.check_undisturbed(id)


def stages(place: Workplace, id: str) -> list[str]:
    return [str(event.data["stage"]) for event in place.history(id).events if event.type == "stage"]
