"""Run, runs() and compare(): what a notebook comes back to; and a training that shows itself and can be stopped."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from PIL import Image

from influencerai import Run, Trainer, compare, runs
from influencerai.domain import Event, StageEvent, StepEvent
from influencerai.errors import CheckpointError, StoppedError, ValidationError
from influencerai.generate.pictures import Pictures
from influencerai.train.watch import RESUME
from tests.small_models import small_sd15
from tests.training_runs import make_config, make_settings, stop_after, write_dataset


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("model") / "sd15")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, sd15: Path) -> Path:
    """Two finished runs that differ in rate and epochs, and one that was stopped."""
    root = tmp_path_factory.mktemp("root")
    write_dataset(root / "me")
    settings = make_settings(root)
    for name, epochs in (("first", 1), ("second", 2)):
        config = make_config(
            sd15, name=name, epochs=epochs, outputPath=f"out/{name}", meta={"validationSplit": 0.2, "seed": 3}
        )
        Trainer(config, settings=settings, on_event=lambda event: None).train("me")
    stopped = make_config(sd15, name="third", outputPath="out/third")
    stopping = Trainer(stopped, settings=settings, on_event=lambda event: None, should_stop=stop_after(1))
    with pytest.raises(StoppedError):
        stopping.train("me")
    return root


@pytest.mark.slow
def test_a_run_is_found_again_by_each_of_its_places(root: Path) -> None:
    run = next(found for found in runs(root) if found.name == "second")
    for place in (run.run_dir, run.output_dir, run.lora_path):
        assert Run.open(place) == run
    assert run.history[-1]["epoch"] == 2
    assert run.lora_path.is_file()


@pytest.mark.slow
def test_a_place_without_a_finished_run_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to no run"):
        Run.open(tmp_path)
    with pytest.raises(CheckpointError, match="belongs to no run"):
        Run.open(tmp_path / "nothing.safetensors")
    [unfinished] = runs(root).unfinished
    with pytest.raises(CheckpointError, match="is not finished") as raised:
        Run.open(unfinished)
    assert "resume=True" in str(raised.value.remedy)


def test_the_runs_of_a_root_are_a_table_of_what_differs(root: Path) -> None:
    found = runs(root)
    assert {run.name for run in found} == {"first", "second"}
    rows = {row["name"]: row for row in found.rows}
    assert rows["first"]["epochs"] == 1
    assert rows["second"]["epochs"] == 2
    assert rows["first"]["finalLoss"] == pytest.approx(next(r for r in found if r.name == "first").result.final_loss)
    assert "seed" not in rows["first"]  # the same in both
    shown = found._repr_html_()
    assert "second" in shown
    assert "third" in shown  # as unfinished
    assert repr(found).endswith("and 1 unfinished")


def test_compared_runs_are_drawn_over_each_other(root: Path, tmp_path: Path) -> None:
    compared = compare(list(runs(root)))
    axes = compared.plot(tmp_path / "losses.png").axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        f"{index}: {run.name}" for index, run in enumerate(compared)
    ]
    assert len(axes.lines) == 4  # loss and validation loss of each
    assert Image.open(tmp_path / "losses.png").width > 400
    assert compare(str(compared[0].run_dir))[0] == compared[0]
    with pytest.raises(ValidationError, match="at least one run"):
        compare()


def test_a_run_and_its_plot_show_themselves(root: Path) -> None:
    run = runs(root)[0]
    assert len(repr(run)) < 400
    assert run.lora_path.name in repr(run)
    card = run._repr_html_()
    assert "mean loss of the last epoch" in card
    assert "data:image/png;base64," in card
    assert Image.open(io.BytesIO(run.plot()._repr_png_())).width > 400


def test_pictures_are_a_list_that_shows_itself_as_a_grid(tmp_path: Path) -> None:
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue", "white")]
    pictures = Pictures([("a", images[:2]), ("b", images[2:])], columns=["seed 0", "seed 1"])
    assert list(pictures) == images
    pictures.save(tmp_path / "grid.png")
    shown = Image.open(io.BytesIO(pictures._repr_png_()))
    assert shown.size == Image.open(tmp_path / "grid.png").size
    assert shown.width > 64


@pytest.mark.slow
def test_progress_is_shown_unless_somebody_listens(root: Path, sd15: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(sd15, name="shown", outputPath="out/shown", epochs=1)
    trainer = Trainer(config, settings=make_settings(root), backend="dry-run")
    trainer.train("me")
    assert "shown: completed in 0.0 minutes: shown-final.safetensors" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="holds the files of another run"):
        trainer.train("me", progress=False)
    Trainer(config, settings=make_settings(root), backend="dry-run", on_event=lambda event: None).train("me")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_ctrl_c_stops_after_the_step_and_says_how_to_resume(root: Path, sd15: Path) -> None:
    config = make_config(sd15, name="stopped", outputPath="out/stopped")

    def press(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == 1:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="the state is saved") as raised:
        Trainer(config, settings=make_settings(root), on_event=press).train("me")
    assert raised.value.remedy == RESUME
    assert raised.value._render_traceback_() == [f"Stopped: {raised.value}"]
    assert signal.getsignal(signal.SIGINT) is handler
    run = Trainer(config, settings=make_settings(root), on_event=lambda event: None).train("me", resume=True)
    assert run.history[0]["step"] == 1


def test_ctrl_c_before_the_first_step_keeps_what_was_done(root: Path, sd15: Path) -> None:
    config = make_config(sd15, name="early", outputPath="out/early")

    def press(event: Event) -> None:
        if isinstance(event, StageEvent) and event.stage == "loading":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError, match="Stopped while loading"):
        Trainer(config, settings=make_settings(root), on_event=press).train("me")
