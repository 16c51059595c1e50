"""The whole product at work: a server trains sample characters for a tenant each, then the images before and after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from influencerai.demo.characters import changed_files
from influencerai.demo.run.before_after import draw_before_after
from influencerai.demo.run.server import DemoServer, missing_for_server, running_server
from influencerai.demo.run.tenants import Trained, dataset_path, train_all
from influencerai.demo.run.view import DemoView
from influencerai.demo.sample_set import write_sample_set
from influencerai.errors import DependencyMissingError
from influencerai.interruption import EndedBySignal, run_until_signal
from influencerai.packages import SERVE_PACKAGES, TRAIN_PACKAGES, missing_packages
from influencerai.settings import Settings

EPOCHS = 60
"""300 steps: enough for both characters to show, and two trainings on two cores end within minutes."""

_INTERRUPTED = "Interrupted; no process of the demo keeps running, and trained files are kept."


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The files and servers of a finished demo."""

    trained: Sequence[Trained]
    grids: dict[str, Path]
    """The images before and after, by character."""
    server: DemoServer
    minutes: float


def run_whole_demo(
    characters: Sequence[str], *, out: Path, epochs: int = EPOCHS, resume: bool = False, view: DemoView
) -> DemoResult:
    """Start a server, train a LoRA of each character for a tenant of its own, and draw before and after.

    Args:
        characters: names of sample characters, each once.
        out: gets `server/` (the server's root), `server.log`, and a folder of results per character.
        epochs: of each training.
        resume: continue an interrupted demo.
        view: shows the progress.

    Raises:
        DependencyMissingError: a package of the extras is missing.
        InterruptedRun: a signal ended it; no process keeps running.
        InfluencerAIError: something failed; no process keeps running.
    """
    check_packages()
    begun = time.monotonic()
    settings = Settings.load(root=out / "server")
    for name in characters:
        folder = settings.root / dataset_path(name)
        if not changed_files(name, folder):
            write_sample_set(name, folder=folder)
    threads = max(1, settings.usable_threads // len(characters))
    server = DemoServer(settings.root, log=out / "server.log", threads=threads)
    grids = {name: out / name / "before-after.png" for name in characters}
    with EndedBySignal(
        "Interrupted; no process of the demo keeps running, and trained files are kept."
    ) as interruption:
        view.starting(server.log)
        with running_server(server, interruption=interruption, view=view):
            view.ready(server.url)
            with view.training() as on_event:
                trained = run_until_signal(
                    train_all(characters, server=server, out=out, epochs=epochs, resume=resume, on_event=on_event)
                )
        draw_before_after({item.lora: grids[item.character] for item in trained}, settings=settings, view=view)
    return DemoResult(trained=trained, grids=grids, server=server, minutes=(time.monotonic() - begun) / 60)


def check_packages() -> None:
    """Report missing packages before the server would.

    Raises:
        DependencyMissingError: names the package and how to install it.
    """
    text = "The demo needs the package '{}', which is not installed."
    if missing := missing_packages(TRAIN_PACKAGES.values()):
        raise DependencyMissingError(text.format(missing[0]), remedy="Run: pip install 'influencerai[train,serve]'.")
    if missing := missing_packages(SERVE_PACKAGES.values()):
        raise missing_for_server(text.format(missing[0]))
