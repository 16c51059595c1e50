"""Problems, warnings and the plan of a batch, printed before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from influencerai.batch.check import Checked
from influencerai.batch.trainings import Batch, Problem
from influencerai.cli.batch_tables import plan_table, print_warnings, problem_table
from influencerai.cli.common import WIDTH_OF_FILES, standard_output
from influencerai.cli.outcome import print_json, print_result
from influencerai.errors import ValidationError
from influencerai.progress.text import duration


def refuse_problems(file: Path, found: Batch, checked: Sequence[Checked], *, as_json: bool) -> None:
    """Show all that is wrong with the file and with each training.

    Raises:
        ValidationError: something is.
    """
    problems = list(found.problems)
    problems += [Problem(where=item.training.name, text=text) for item in checked for text in item.problems]
    if not problems:
        return
    error = ValidationError(
        f"{file} cannot be trained: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}.",
        remedy="Nothing was started. Mend them and run the same command again.",
    )
    if as_json:
        for problem in problems:
            error.field_errors.setdefault(problem.where, []).append(problem.text)
    else:
        console = Console(stderr=True, highlight=False)
        wide = console if console.is_terminal else Console(stderr=True, highlight=False, width=WIDTH_OF_FILES)
        wide.print(problem_table(problems))
    raise error


def show_warnings(general: Sequence[str], checked: Sequence[Checked], *, as_json: bool) -> None:
    """What is allowed but probably not meant, each text once."""
    warnings = [("", text) for text in general]
    warnings += [(item.training.name, text) for item in checked for text in item.warnings]
    if not as_json:
        print_warnings(Console(stderr=True, highlight=False, soft_wrap=True), warnings)
        return
    for name, text in warnings:
        print_json({"type": "warning", "training": name or None, "message": text})


def show_plan(checked: Sequence[Checked], *, as_json: bool) -> None:
    """What would be done, and what all of it costs."""
    todo = [item for item in checked if item.standing == "open"]
    steps = sum(item.steps or 0 for item in todo)
    known = [item.seconds for item in todo if item.seconds is not None]
    seconds = sum(known) if known else None
    if as_json:
        trainings = [_plan_document(item) for item in checked]
        totals = {"open": len(todo), "steps": steps, "seconds": seconds, "ofKnownTime": len(known)}
        print_result({"dryRun": True, "trainings": trainings, "totals": totals})
        return
    console = standard_output()
    console.print(plan_table(checked))
    if seconds is None:
        time = "how long that takes is not known before one has been trained here"
    else:
        of = "" if len(known) == len(todo) else f" for {len(known)} of them"
        time = f"about {duration(seconds)}{of}, at the speed of earlier ones"
    done = len(checked) - len(todo)
    console.print()
    count = "1 training" if len(todo) == 1 else f"{len(todo)} trainings"
    earlier = f" {done} more ended earlier." if done else ""
    console.print(f"{count}, {steps} steps in all: {time}.{earlier}")
    console.print("Dry run: nothing was trained.")


def _plan_document(item: Checked) -> dict[str, Any]:
    return {
        "name": item.training.name,
        "dataset": item.training.dataset,
        "config": item.training.config.to_wire(),
        "standing": item.standing,
        "resumes": item.resumes,
        "steps": item.steps,
        "seconds": item.seconds,
    }
