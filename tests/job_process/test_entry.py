"""An attempt at a job, carried out in this process: what it says, what it leaves, and how its errors are judged."""

from __future__ import annotations

import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from influencerai import Trainer
from influencerai.demo.characters import MODEL_ID
from influencerai.domain import CheckpointEvent, StageEvent, StepEvent, TrainingSpec, WarningEvent
from influencerai.domain.output_path import RUN_MARKER
from influencerai.errors import DatasetError, InfluencerAIError
from influencerai.files import atomic_file, safetensors_file
from influencerai.job_process.channel import Channel
from influencerai.job_process.entry import run_attempt
from influencerai.job_process.messages import (
    PROCESS_MESSAGE,
    WORKER_MESSAGE,
    Completed,
    Failed,
    Go,
    Prepared,
    ProcessMessage,
    Progress,
    Stop,
    Stopped,
    TrainingRequest,
    WorkerMessage,
    to_line,
)
from influencerai.train.causes import is_infrastructure
from influencerai.train.runs.training_state import list_states
from tests.attempts import DATASET, JOB, OUTPUT, lora_files, make_request, undisturbed, write_pictures
from tests.training_runs import make_config, make_settings, make_spec


class Supervisor:
    """The worker's side: says Go to what was prepared, or to `spec`, and Stop when `stop_at` says so."""

    def __init__(
        self,
        *,
        spec: TrainingSpec | None = None,
        stop_at: Callable[[ProcessMessage], bool] = lambda _: False,
        cancels: bool = False,
    ) -> None:
        self.messages: list[ProcessMessage] = []
        self._spec = spec
        self._stop_at = stop_at
        self._stopping = False
        self._cancels = cancels

    def run(self, order: TrainingRequest) -> ProcessMessage:
        channel = Channel(
            send=self._take,
            receive=self._answer,
            stop_requested=lambda: self._stopping,
            cancel_requested=lambda: self._cancels and self._stopping,
        )
        run_attempt(order, channel)
        assert not any(isinstance(message, Completed | Stopped | Failed) for message in self.messages[:-1])
        return self.messages[-1]

    @property
    def prepared(self) -> Prepared:
        [message] = [message for message in self.messages if isinstance(message, Prepared)]
        return message

    def events(self, kind: type[Any]) -> list[Any]:
        found = [message.event for message in self.messages if isinstance(message, Progress)]
        return [event for event in found if isinstance(event, kind)]

    def _take(self, message: ProcessMessage) -> None:
        assert PROCESS_MESSAGE.validate_json(to_line(message)) == message
        self.messages.append(message)
        self._stopping = self._stopping or self._stop_at(message)

    def _answer(self) -> WorkerMessage:
        answer: WorkerMessage = Stop() if self._stopping else Go(spec=self._spec or self.prepared.spec)
        assert WORKER_MESSAGE.validate_json(to_line(answer)) == answer
        return answer


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded pictures and captions, which most of these tests are not about."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    write_pictures(tmp_path)
    (tmp_path / ".influencerai").mkdir()
    (tmp_path / ".influencerai/cache").symlink_to(cache)
    return tmp_path


def run(order: TrainingRequest) -> tuple[ProcessMessage, Supervisor]:
    supervisor = Supervisor()
    return supervisor.run(order), supervisor


def step(number: int) -> Callable[[ProcessMessage], bool]:
    def is_reached(message: ProcessMessage) -> bool:
        return isinstance(message, Progress) and isinstance(message.event, StepEvent) and message.event.step == number

    return is_reached


def stage(name: str) -> Callable[[ProcessMessage], bool]:
    def is_reached(message: ProcessMessage) -> bool:
        return isinstance(message, Progress) and isinstance(message.event, StageEvent) and message.event.stage == name

    return is_reached


@pytest.mark.campaign
def test_an_attempt_ends_with_the_bytes_of_the_trainer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    outcome, supervisor = run(make_request(root))
    assert isinstance(outcome, Completed)
    assert outcome.result.lora_path == f"{OUTPUT}/test-run-final.safetensors"
    other = root / "other"
    write_pictures(other)
    plain = Trainer(make_config(MODEL_ID, batchSize=1), settings=make_settings(other), on_event=lambda _: None).train(
        DATASET
    )
    assert lora_files(root / OUTPUT) == lora_files(plain.output_dir)
    assert plain.spec == supervisor.prepared.spec
    assert outcome.result.warnings == plain.result.warnings
    assert outcome.result.final_loss == plain.result.final_loss
    assert (root / OUTPUT / RUN_MARKER).read_text() == JOB


@pytest.mark.slow
def test_it_reports_what_happens_and_keeps_the_states(root: Path) -> None:
    order = make_request(root, config={"networkAlpha": 64})
    outcome, supervisor = run(order)
    assert isinstance(outcome, Completed)
    prepared = supervisor.prepared
    assert (prepared.output_dir, prepared.dataset_fingerprint) == (OUTPUT, prepared.spec.dataset_fingerprint)
    assert any("networkAlpha 64 exceeds networkDim 4" in text for text in prepared.warnings)
    assert [event.message for event in supervisor.events(WarningEvent)] == list(prepared.warnings)
    assert outcome.result.warnings == prepared.warnings
    assert [event.step for event in supervisor.events(StepEvent)] == [1, 2, 3, 4]
    paths = [event.path for event in supervisor.events(CheckpointEvent)]
    assert paths == [f"{OUTPUT}/test-run-epoch-1.safetensors", f"{OUTPUT}/test-run-final.safetensors"]
    assert list_states(order.run_dir), "the worker discards them when the result is safe"


def test_an_order_survives_the_wire(root: Path) -> None:
    order = make_request(root, warnings=("one",), cache_max_bytes=10, as_path=True)
    assert TrainingRequest.model_validate_json(to_line(order)) == order


@pytest.mark.slow
def test_the_spec_in_go_is_the_truth(root: Path) -> None:
    order = make_request(root)
    spec = make_spec(order.config, root / DATASET, settings=make_settings(root))
    frozen = spec.model_copy(update={"options": spec.options.model_copy(update={"seed": 7})})
    assert isinstance(Supervisor(spec=frozen).run(order), Completed)
    metadata, _ = safetensors_file.read_safetensors_header(root / OUTPUT / "test-run-final.safetensors")
    assert metadata["ss_seed"] == "7"


@pytest.mark.campaign
def test_a_stopped_attempt_is_gone_on_with(root: Path) -> None:
    order = make_request(root, config={"networkAlpha": 64})
    first = Supervisor(stop_at=step(3))
    outcome = first.run(order)
    assert isinstance(outcome, Stopped)
    assert outcome.failure.code == "stopped"
    assert outcome.failure.error == "Stopped at step 3 of 4; the state is saved."
    assert (outcome.failure.epoch, outcome.failure.partial_checkpoints) == (2, ("test-run-epoch-1.safetensors",))
    shutil.rmtree(root / DATASET)
    spec, warnings = first.prepared.spec, first.prepared.warnings
    again, second = run(make_request(root, spec=spec, warnings=warnings))
    assert isinstance(again, Completed)
    assert [event.step for event in second.events(StepEvent)] == [4]
    assert second.events(WarningEvent) == [], "they were reported before"
    assert again.result.warnings == second.prepared.warnings == warnings
    assert lora_files(root / OUTPUT) == undisturbed(spec, order, root / "plain")


@pytest.mark.slow
def test_a_later_attempt_that_fails_early_still_names_what_is_there(root: Path) -> None:
    order = make_request(root)
    first = Supervisor(stop_at=step(3))
    first.run(order)
    shutil.rmtree(order.run_dir / "dataset")
    shutil.rmtree(order.blobs_dir)
    outcome, _ = run(order.model_copy(update={"spec": first.prepared.spec}))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == ("dataset", False)
    assert outcome.failure.to_wire() == {
        "error": "The job's copy of ava_01.png is gone. Start a new job on the dataset.",
        "code": "dataset",
        "remedy": "Start a new job on the dataset.",
        "epoch": 2,
        "partialCheckpoints": ["test-run-epoch-1.safetensors"],
    }


@pytest.mark.slow
@pytest.mark.parametrize(("cancels", "epochs"), [(True, [1, 2]), (False, [])])
def test_a_cancelled_attempt_publishes_its_last_two_epochs(cancels: bool, epochs: list[int], root: Path) -> None:
    order = make_request(root, config={"epochs": 5, "meta": {"saveEveryNEpochs": 5}})
    supervisor = Supervisor(stop_at=step(5), cancels=cancels)
    outcome = supervisor.run(order)
    assert isinstance(outcome, Stopped)
    names = tuple(f"test-run-epoch-{epoch}.safetensors" for epoch in epochs)
    assert outcome.failure.partial_checkpoints == names
    assert [event.epoch for event in supervisor.events(CheckpointEvent)] == epochs
    if cancels:
        again, _ = run(
            make_request(root, config={"epochs": 5, "meta": {"saveEveryNEpochs": 5}}, spec=supervisor.prepared.spec)
        )
        assert isinstance(again, Completed)
        assert again.result.checkpoints == ("test-run-final.safetensors",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_at", "sentence"),
    [
        (stage("checking"), "Stopped while copying the images;"),
        (lambda message: isinstance(message, Prepared), "Stopped while waiting;"),
        (stage("encoding images"), "Stopped while encoding images;"),
        (stage("loading"), "Stopped at step 0 of 4;"),
    ],
    ids=["checking", "waiting", "encoding", "loading"],
)
def test_stop_is_heard_before_the_first_step(
    stop_at: Callable[[ProcessMessage], bool], sentence: str, root: Path
) -> None:
    outcome = Supervisor(stop_at=stop_at).run(make_request(root))
    assert isinstance(outcome, Stopped)
    assert outcome.failure.error.startswith(sentence)


@pytest.mark.slow
def test_a_taken_folder_is_left_alone(root: Path) -> None:
    folder = root / OUTPUT
    folder.mkdir(parents=True)
    (folder / "mine.safetensors").write_bytes(b"mine")
    spec = None
    for _ in range(2):
        outcome, supervisor = run(make_request(root, spec=spec, backend="dry-run"))
        spec = supervisor.prepared.spec
        assert isinstance(outcome, Completed)
        assert supervisor.prepared.output_dir == f"{OUTPUT}-{JOB}"
        assert outcome.result.lora_path == f"{OUTPUT}-{JOB}/test-run-final.safetensors"
        assert any(f"{OUTPUT} holds other files" in warning for warning in outcome.result.warnings)
    assert lora_files(folder) == {"mine.safetensors": b"mine"}


def empty_the_dataset(root: Path) -> dict[str, Any]:
    shutil.rmtree(root / DATASET)
    (root / DATASET).mkdir()
    return {}


def link_the_dataset_out(root: Path) -> dict[str, Any]:
    (root / "tenant").mkdir()
    (root / "tenant/me").symlink_to(root / DATASET)
    return {"root": root / "tenant", "dataset": "me"}


def link_the_output_out(root: Path) -> dict[str, Any]:
    (root / "tenant").mkdir()
    (root / DATASET).rename(root / "tenant/me")
    (root / "tenant/out").symlink_to(root)
    return {"root": root / "tenant", "dataset": "me", "output_dir": "out/loras"}


def name_no_model(root: Path) -> dict[str, Any]:
    return {"config": {"modelName": "acme/no-such-model"}}


def name_a_path(root: Path) -> dict[str, Any]:
    from influencerai.demo.characters import model_path

    return {"config": {"modelName": str(model_path())}}


def name_a_backend(root: Path) -> dict[str, Any]:
    return {"backend": "difusers"}


@pytest.mark.parametrize(
    ("arrange", "code", "sentence"),
    [
        (empty_the_dataset, "dataset", "data/datasets/ava cannot be trained on: It holds no images"),
        (link_the_dataset_out, "dataset", "me leads out of the root"),
        (link_the_output_out, "export", "out/loras leads out of the root"),
        (name_no_model, "model", "There is no base model 'acme/no-such-model'"),
        (name_a_path, "model", "No path is taken here"),
        (name_a_backend, "training", "There is no backend 'difusers'"),
    ],
)
def test_what_a_user_must_mend_is_not_tried_again(
    arrange: Callable[[Path], dict[str, Any]], code: str, sentence: str, root: Path
) -> None:
    outcome, _ = run(make_request(root, **arrange(root)))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == (code, False)
    assert sentence in outcome.message
    assert str(root) not in outcome.message
    failure = outcome.failure
    assert (failure.error, failure.code, failure.epoch) == (outcome.message, code, 0)
    assert failure.remedy
    assert failure.partial_checkpoints == ()


def test_a_missing_model_is_wanted_in_the_models_folder(root: Path) -> None:
    outcome, _ = run(make_request(root, **name_no_model(root)))
    assert isinstance(outcome, Failed)
    assert "Copy the model to models/acme/no-such-model" in (outcome.failure.remedy or "")
    assert "Copy the model to models/acme/no-such-model" in outcome.failure.error


def test_a_path_is_taken_where_it_is_allowed(root: Path) -> None:
    outcome, _ = run(make_request(root, as_path=True, backend="dry-run", **name_a_path(root)))
    assert isinstance(outcome, Completed)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """What this process writes beyond `size` bytes of a file is refused by the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_full_disk_is_tried_again_and_the_run_goes_on(root: Path) -> None:
    first = Supervisor(stop_at=step(2))
    first.run(make_request(root))
    spec = first.prepared.spec
    order = make_request(root, spec=spec)
    before = [path.name for path in list_states(order.run_dir)]
    with largest_file(100_000):
        outcome, _ = run(order)
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert "cannot be written: File too large" in outcome.message
    assert outcome.failure.epoch == 2
    assert [path.name for path in list_states(order.run_dir)] == before
    again, supervisor = run(order)
    assert isinstance(again, Completed)
    assert [event.step for event in supervisor.events(StepEvent)] == [3, 4]


@pytest.mark.slow
def test_a_defect_is_tried_again_and_shows_no_secret(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACME_API_TOKEN", "s3cr3t-value")
    supervisor = Supervisor()

    def break_down(message: ProcessMessage) -> None:
        if stage("loading")(message):
            raise KeyError(f"first line\ns3cr3t-value at postgres://me:hunter2@db/x below {root}/data")
        supervisor.messages.append(message)

    channel = Channel(send=break_down, receive=lambda: Go(spec=supervisor.prepared.spec), stop_requested=lambda: False)
    run_attempt(make_request(root), channel)
    outcome = supervisor.messages[-1]
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == ("internal", True)
    assert outcome.message.startswith("KeyError: ")
    assert "*** at postgres://***@db/x below data" in outcome.message
    log = capfd.readouterr().err
    assert "break_down" in log
    for text in (outcome.to_wire(), log):
        assert "s3cr3t-value" not in str(text)
        assert "hunter2" not in str(text)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOMEM])
def test_infrastructure_is_found_behind_other_errors(number: int) -> None:
    try:
        try:
            raise OSError(number, "no")
        except OSError as error:
            raise ValueError("wrapped") from error
    except ValueError:
        with pytest.raises(DatasetError) as caught:
            raise DatasetError("wrapped again")  # noqa: B904 - the context is enough
    assert is_infrastructure(caught.value)


def test_a_missing_file_is_no_infrastructure(tmp_path: Path) -> None:
    with pytest.raises(InfluencerAIError) as caught:
        atomic_file.write_atomic(Path("/dev/null/x"), b"")
    assert not is_infrastructure(caught.value)
    looped = ValueError()
    looped.__cause__, looped.__context__ = KeyError(), looped
    assert not is_infrastructure(looped)


def test_a_machine_without_the_gpu_gives_the_job_back(root: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    outcome, _ = run(make_request(root, device="cuda"))
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert "no CUDA device" in outcome.message


@pytest.mark.slow
def test_what_fits_in_a_slower_way_only_is_trained_so_and_says_it(tmp_path: Path) -> None:
    """The batch stays what it was: the result differs by rounding alone."""
    warning = (
        "To fit into memory it trains with gradient checkpointing and in micro-batches of 1, "
        "which make up the batch of 2."
    )
    slower: dict[str, Any] = {"micro_batch": 1, "gradient_checkpointing": True}
    files = []
    for name, placed, plan in (("asked", {}, (2, False)), ("placed", slower, (1, True))):
        place = tmp_path / name
        write_pictures(place)
        supervisor = Supervisor()
        last = supervisor.run(make_request(place, config={"batchSize": 2}, **placed))
        assert isinstance(last, Completed), last
        frozen = supervisor.prepared.spec.plan
        assert (frozen.micro_batch, frozen.gradient_checkpointing) == plan
        assert (warning in last.result.warnings) == bool(placed)
        files.append(load(lora_files(place / OUTPUT)["test-run-final.safetensors"]))
    for key, tensor in files[0].items():
        assert torch.linalg.vector_norm(files[1][key] - tensor) <= 1e-3 * torch.linalg.vector_norm(tensor), key
