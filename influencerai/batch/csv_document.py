"""A batch as CSV: one training per row; columns are `dataset`, fields of a config, and `meta.` keys."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from pydantic.alias_generators import to_camel

from influencerai.batch.document import cannot_be_read, suggestion
from influencerai.batch.trainings import Batch, Draft, Problem, resolve_drafts
from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.text_files import read_text_file

DATASET, PRESET = "dataset", "preset"
_TEXTS = frozenset({DATASET, PRESET, "name", "description", "modelName", "outputPath", "meta.triggerWord"})
"""Columns whose cells are texts whatever they look like."""


def read_rows(path: Path) -> Batch:
    """The trainings of a CSV file, separated by commas, semicolons or tabs; an empty cell means the default.

    Raises:
        ValidationError: the file itself cannot be read.
    """
    try:
        file = read_text_file(path)
    except (OSError, ValueError) as error:
        raise cannot_be_read(path, error) from error
    text = file.text
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise cannot_be_read(path, f"line {reader.line_num}: {error}") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise cannot_be_read(path, "it is empty")
    (line, header), *rest = rows
    columns = [_column(name) for name in header]
    faults, unknown = _look_at(columns)
    if faults or not rest:
        faults = faults or ["There are no rows below the names of the columns."]
        return Batch(problems=tuple(Problem(where=f"line {line}", text=text) for text in faults))
    problems: list[Problem] = []
    drafts = list(_drafts(columns, rest, ignored=unknown, problems=problems))
    found = resolve_drafts(drafts, defaults={})
    warnings = [f"{path} {file.warning}"] if file.warning else []
    warnings += [f"line {line}: {name} is not a field and is ignored." for name in sorted(unknown)]
    return Batch(
        trainings=found.trainings,
        problems=(*problems, *found.problems),
        warnings=(*warnings, *found.warnings),
    )


def _drafts(
    columns: list[str], rows: list[tuple[int, list[str]]], *, ignored: set[str], problems: list[Problem]
) -> Iterator[Draft]:
    for line, row in rows:
        where = f"line {line}"
        if any(row[len(columns) :]):
            text = f"It has {len(row)} cells, but there are {len(columns)} columns: put quotes around text with commas."
            problems.append(Problem(where=where, text=text))
            continue
        cells = {name: cell for name, cell in zip(columns, row, strict=False) if cell and name not in ignored}
        if DATASET not in cells:
            problems.append(Problem(where=where, text="The cell `dataset` is empty: name a folder of pictures."))
            continue
        dataset, name = cells.pop(DATASET), cells.pop("name", None)
        yield Draft(
            dataset=dataset,
            dataset_name=PurePath(dataset).name or DATASET,
            config_name=cells.get(PRESET, ""),
            fields=_fields(cells),
            name=name,
            where=where,
            config_at=where,
        )


def _column(title: str) -> str:
    """A field's or a meta key's wire name, whichever way it is spelt."""
    name = title.strip()
    return f"meta.{to_camel(name.removeprefix('meta.'))}" if name.startswith("meta.") else to_camel(name)


def _look_at(columns: list[str]) -> tuple[list[str], set[str]]:
    """What is wrong with the header, and the columns that mean nothing."""
    faults = []
    unknown: set[str] = set()
    for index, name in enumerate(columns):
        model = TrainingOptions if name.startswith("meta.") else LoraConfig
        short = name.removeprefix("meta.")
        if name in columns[:index]:
            faults.append(f"The column `{name}` stands twice.")
        elif name in (DATASET, PRESET, *LoraConfig.wire_names()) or short in TrainingOptions.wire_names():
            if name in TrainingOptions.wire_names():
                faults.append(f"{name}: This option belongs under meta: call the column `meta.{name}`.")
        elif nearest := model.nearest_field(short):
            prefix = "meta." if model is TrainingOptions else ""
            faults.append(f"{name}: Unknown field, did you mean '{prefix}{nearest}'?")
        elif nearest := TrainingOptions.nearest_field(short):
            faults.append(f"{name}: Unknown field, did you mean 'meta.{nearest}'?")
        elif near := suggestion(name, [DATASET, PRESET]):
            faults.append(f"{name}: Unknown column{near}")
        else:
            unknown.add(name)
    if DATASET not in columns and not any(DATASET in fault for fault in faults):
        faults.append("There is no column `dataset`, which names the folder of pictures.")
    return faults, unknown


def _fields(cells: Mapping[str, str]) -> dict[str, Any]:
    """The cells as a config's document."""
    values = {name: cell if name in _TEXTS else _value(cell) for name, cell in cells.items()}
    meta = {name.removeprefix("meta."): value for name, value in values.items() if name.startswith("meta.")}
    fields = {name: value for name, value in values.items() if not name.startswith("meta.")}
    return {**fields, "meta": meta} if meta else fields


def _value(cell: str) -> Any:
    """JSON, or the text itself where it is none; a spreadsheet writes TRUE."""
    try:
        return json.loads(cell.lower() if cell.lower() in ("true", "false", "null") else cell)
    except (ValueError, RecursionError):
        return cell
