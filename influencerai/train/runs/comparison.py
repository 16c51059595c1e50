"""Comparison: the runs below a root as a table, and several runs over each other."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from influencerai.errors import CheckpointError, ValidationError
from influencerai.progress.curve import plot_losses
from influencerai.settings import Settings
from influencerai.train.runs.folder import RunFolder
from influencerai.train.runs.run import Run

if TYPE_CHECKING:
    from influencerai.progress.figure import ShownFigure

Row = dict[str, Any]
_SUMMARY = ("name", "created", "finalLoss", "validationLoss", "minutes", "lora")


class Runs(Sequence[Run]):
    """Finished runs, which a notebook shows as a table.

    `pandas.DataFrame(runs.rows)` is the same as a data frame.

    Args:
        runs: the runs in order.
        unfinished: folders of runs that can be resumed.
    """

    def __init__(self, runs: Sequence[Run], *, unfinished: Sequence[Path] = ()) -> None:
        self._runs = list(runs)
        self.unfinished = list(unfinished)
        """Folders of runs that can be resumed."""

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Run]: ...
    def __getitem__(self, index: int | slice) -> Run | Sequence[Run]:
        return self._runs[index] if isinstance(index, int) else Runs(self._runs[index])

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def rows(self) -> list[Row]:
        """A row per run: name, time of creation, losses, minutes, file, and the settings in which the runs differ."""
        settings = [_settings(run) for run in self._runs]
        varied = sorted(
            name
            for name in {name for found in settings for name in found}
            if len({repr(found.get(name)) for found in settings}) > 1
        )
        return [
            {
                "name": run.name,
                "created": run.spec.created_at.isoformat(timespec="seconds"),
                "finalLoss": run.result.final_loss,
                "validationLoss": run.result.validation_loss,
                "minutes": run.result.training_time_minutes,
                "lora": run.result.lora_path,
                **{name: found.get(name) for name in varied},
            }
            for run, found in zip(self._runs, settings, strict=True)
        ]

    def plot(self, path: str | Path | None = None) -> ShownFigure:
        """The mean losses of all runs over each other, dashed where they are validation losses."""
        return plot_losses(
            {
                f"{index}: {run.name}" if len(self._runs) > 1 else run.name: (
                    [(int(record["step"]), float(record["loss"])) for record in run.history],
                    [(int(record["step"]), float(record["loss"])) for record in run.validation_history],
                )
                for index, run in enumerate(self._runs)
            },
            path=path,
        )

    def __repr__(self) -> str:
        names = ", ".join(repr(run.name) for run in self._runs)
        return f"Runs({names})" + (f" and {len(self.unfinished)} unfinished" if self.unfinished else "")

    def _repr_html_(self) -> str:
        rows = self.rows
        columns = list(rows[0]) if rows else list(_SUMMARY)
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(_text(row[name]))}</td>' for name in columns)}</tr>" for row in rows
        )
        left = "".join(f"<div>unfinished: {html.escape(str(folder))}</div>" for folder in self.unfinished)
        return f"<table><tr>{head}</tr>{body}</table>{left}"


def runs(root: str | Path | None = None) -> Runs:
    """The runs below `root`, newest first; default: the root of `Settings.load()`.

    A run whose files cannot be read is left out.

    Raises:
        CheckpointError: the folder of the runs cannot be listed.
    """
    settings = Settings.load(root=root)
    found, unfinished = [], []
    for folder in RunFolder.all(settings.root / ".influencerai" / "runs"):
        if not folder.is_finished:
            unfinished.append(folder.path)
            continue
        with suppress(CheckpointError):
            found.append(Run.open(folder.path, settings=settings))
    return Runs(found, unfinished=unfinished)


def compare(*compared: Run | str | Path | Sequence[Run | str | Path]) -> Runs:
    """Several runs side by side: a table of what differs, and `plot()` of their losses over each other.

    Args:
        compared: runs, or what `Run.open` takes, or lists of them.

    Raises:
        CheckpointError: a path holds no finished run.
        ValidationError: there is nothing to compare, or something that is neither a run nor a path.
    """
    found = list(_opened(compared))
    if not found:
        raise ValidationError(field_errors={"runs": ["Name at least one run"]})
    return Runs(found)


def _opened(compared: Sequence[Run | str | Path | Sequence[Run | str | Path]]) -> Iterator[Run]:
    for item in compared:
        if isinstance(item, Run):
            yield item
        elif isinstance(item, Sequence) and not isinstance(item, str | bytes):
            yield from _opened(item)
        else:
            yield Run.open(item)


def _settings(run: Run) -> Row:
    """What was chosen, by wire name."""
    left_out = {"name", "description", "meta", "isDefault", "outputPath"}
    config = {name: value for name, value in run.spec.config.to_wire().items() if name not in left_out}
    return config | run.spec.options.to_wire() | {"images": len(run.spec.samples)}


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
