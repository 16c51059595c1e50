"""The whole product at work: a server that trains the characters of two tenants, who ask for it over HTTP."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import click

from influencerai.cli.characters import write_sample_set
from influencerai.cli.demo_grid import draw_before_after
from influencerai.cli.demo_interruption import DemoInterruption
from influencerai.cli.demo_progress import choose_demo_listener
from influencerai.cli.demo_server import DemoServer, missing_for_server, running_server
from influencerai.cli.demo_tenants import Trained, dataset_path, tenant_of, train_all
from influencerai.cli.diagnosis import SERVE_PACKAGES, TRAIN_PACKAGES
from influencerai.cli.outcome import print_json, print_result
from influencerai.cli.packages import missing_packages
from influencerai.cli.progress import short_path
from influencerai.demo.characters import changed_files
from influencerai.errors import DependencyMissingError
from influencerai.settings import Settings

EPOCHS = 60
"""300 steps: after so many the characters are there, and two trainings on two cores have ended in good time."""


def run_whole_demo(
    characters: Sequence[str], *, out: Path, epochs: int = EPOCHS, resume: bool = False, as_json: bool = False
) -> None:
    """Start a server, have it train a LoRA of each character for a tenant of its own, and draw before and after.

    Args:
        characters: names of sample characters, each once.
        out: `server/` in it gets the server's root, `server.log` its log, a folder per character what was made.
        epochs: of each training.
        resume: go on where an interrupted demo has stopped.
        as_json: print JSON lines, the result as the last one.

    Raises:
        DependencyMissingError: a package of the extras is missing.
        InterruptedRun: a signal has ended it; nothing runs any more.
        InfluencerAIError: something failed; nothing runs any more.
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
    with DemoInterruption() as interruption:
        if not as_json:
            click.echo(f"Starting a server with Ray; its log is {short_path(server.log)}.", err=True)
        with running_server(server, interruption=interruption, as_json=as_json):
            _say_ready(server, characters, as_json=as_json)
            with choose_demo_listener(characters, as_json=as_json) as listener:
                trained = asyncio.run(
                    train_all(characters, server=server, out=out, epochs=epochs, resume=resume, on_event=listener)
                )
        draw_before_after({item.lora: grids[item.character] for item in trained}, settings=settings, as_json=as_json)
    minutes = (time.monotonic() - begun) / 60
    if as_json:
        _print_json(trained, grids=grids, server=server, minutes=minutes)
    else:
        _print_end(trained, grids=grids, server=server, minutes=minutes)


def check_packages() -> None:
    """Find out now what the server would find out later.

    Raises:
        DependencyMissingError: says what is missing, how to install it, and where possible how to do without.
    """
    text = "The demo needs the package '{}', which is not installed."
    if missing := missing_packages(TRAIN_PACKAGES.values()):
        raise DependencyMissingError(text.format(missing[0]), remedy="Run: pip install 'influencerai[train,serve]'.")
    if missing := missing_packages(SERVE_PACKAGES.values()):
        raise missing_for_server(text.format(missing[0]))


def _say_ready(server: DemoServer, characters: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"type": "ready", "url": server.url})
        return
    tenants = " and ".join(tenant_of(name) for name in characters)
    click.echo(f"It listens on {server.url} (its page: {server.url}/api); a job for {tenants}:", err=True)


def _print_json(trained: Sequence[Trained], *, grids: dict[str, Path], server: DemoServer, minutes: float) -> None:
    made = [
        {
            "character": item.character,
            "tenant": item.tenant,
            "jobId": item.job.id,
            "grid": str(grids[item.character]),
            "loraPath": str(item.lora),
            "finalLoss": (item.job.result or {}).get("finalLoss"),
            "trainingTimeMinutes": (item.job.result or {}).get("trainingTimeMinutes"),
        }
        for item in trained
    ]
    where = {"root": str(server.root), "log": str(server.log)}
    print_result({"characters": made, **where, "minutes": round(minutes, 2)})


def _print_end(trained: Sequence[Trained], *, grids: dict[str, Path], server: DemoServer, minutes: float) -> None:
    click.echo(f"Trained {' and '.join(item.character for item in trained)} in {minutes:.1f} minutes.")
    for item in trained:
        click.echo(f"{item.character}:")
        click.echo(f"  before and after: {short_path(grids[item.character])}\n  LoRA: {short_path(item.lora)}")
    root, tenant = shlex.quote(short_path(server.root)), trained[0].tenant
    click.echo(f"The server's log: {short_path(server.log)}")
    click.echo(
        f"""
The same server again, with these jobs in it; its page is then http://127.0.0.1:3001/api:
  influencerai serve --root {root}
In another terminal, all jobs of a tenant, and those that run:
  influencerai jobs list --tenant {tenant}
  influencerai jobs watch --tenant {tenant}"""
    )
