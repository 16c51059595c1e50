"""A batch's file: what is trained on what, as YAML (datasets x configs) or CSV (one training per row)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePath
from typing import Annotated, Any

import pydantic
import yaml
from pydantic import BeforeValidator, Field

from influencerai.batch.trainings import Batch, Draft, Problem, resolve_drafts
from influencerai.domain.wire import WireModel
from influencerai.errors import ValidationError
from influencerai.spelling import nearest
from influencerai.text_files import read_text_file
from influencerai.training_plan.config_sources import file_layer

Lines = dict[tuple[str | int, ...], int]


class DatasetEntry(WireModel):
    """A folder of pictures."""

    path: str = Field(min_length=1, description="Relative to the root, or absolute.")
    name: str | None = Field(default=None, min_length=1, max_length=100, description="Default: the folder's name.")
    trigger_word: str | None = Field(default=None, description="For every config that has none of its own.")

    @property
    def title(self) -> str:
        return self.name or PurePath(self.path).name or "dataset"


def _as_entry(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _as_config(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


Dataset = Annotated[DatasetEntry, BeforeValidator(_as_entry)]
Config = Annotated[dict[str, Any], BeforeValidator(_as_config)]


class TrainingEntry(WireModel):
    """One training that is not of the matrix."""

    dataset: Dataset = Field(description="Name or path of one above, or another.")
    config: Config = Field(description="Name of one above, a preset, or fields.")
    name: str | None = Field(default=None, min_length=1, max_length=100, description="Of the training.")


class ExcludeEntry(WireModel):
    """What of the matrix is left out; a part that is absent means all."""

    dataset: str | None = None
    config: str | None = None


class BatchDocument(WireModel):
    """The whole file."""

    defaults: dict[str, Any] = Field(default_factory=dict, description="Fields of every config.")
    datasets: tuple[Dataset, ...] = ()
    configs: tuple[Config, ...] = ()
    trainings: tuple[TrainingEntry, ...] = ()
    exclude: tuple[ExcludeEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Config:
    """A config as it stands in the file; `title` is empty where nothing names it."""

    title: str
    fields: dict[str, Any]
    where: str


def read_batch(path: Path) -> Batch:
    """The trainings of a file: CSV by its suffix, else YAML (of which JSON is a part).

    Everything that is wrong with an entry is a problem of the batch.

    Raises:
        ValidationError: the file itself cannot be read.
    """
    if path.suffix.lower() == ".csv":
        from influencerai.batch.csv_document import read_rows

        return read_rows(path)
    try:
        layer = file_layer(path)
    except ValidationError as error:
        error.message = error.message.replace("The config file", "The batch file", 1)
        raise
    try:
        lines = _lines(read_text_file(path).text)
    except (OSError, ValueError, yaml.YAMLError):
        lines = {}
    given = {**layer.fields, **({"meta": layer.meta} if layer.meta else {})}
    try:
        document = BatchDocument.model_validate(given)
    except pydantic.ValidationError as error:
        return Batch(problems=tuple(_structural(error, lines)))
    warnings = list(layer.warnings)
    warnings += [f"{name} is not a field and is ignored." for name in BatchDocument.unknown_fields(given)]
    warnings += [
        f"{_place((part, index), lines)}: {name} is not a field and is ignored."
        for part, model in (("datasets", DatasetEntry), ("trainings", TrainingEntry), ("exclude", ExcludeEntry))
        for index, entry in enumerate(given.get(part) or ())
        if isinstance(entry, Mapping)
        for name in model.unknown_fields(entry)
    ]
    return _Reading(document, lines).batch(warnings)


class _Reading:
    """A document on its way to trainings; what is wrong gathers in `problems`."""

    def __init__(self, document: BatchDocument, lines: Lines) -> None:
        self._document = document
        self._lines = lines
        self._problems: list[Problem] = []
        self._configs = [self._config(fields, index) for index, fields in enumerate(document.configs)]
        self._check_titles("datasets", [entry.title for entry in document.datasets])
        self._check_titles("configs", [config.title for config in self._configs])

    def batch(self, warnings: Sequence[str]) -> Batch:
        drafts = [*self._matrix(), *self._explicit()]
        if not drafts and not self._problems:
            text = "It names no training. Give `datasets` and `configs`, or `trainings`."
            self._problems.append(Problem(where="the file", text=text))
        defaults = self._document.defaults
        found = resolve_drafts(drafts, defaults=defaults, defaults_at=_place(("defaults",), self._lines))
        problems = (*self._problems, *found.problems)
        return Batch(trainings=found.trainings, problems=problems, warnings=(*warnings, *found.warnings))

    def _config(self, fields: Mapping[str, Any], index: int) -> _Config:
        title = fields.get("name") or fields.get("preset") or ""
        if not title and len(self._document.configs) > 1:
            self._refuse("configs", index, "name: Field required, since it tells the trainings apart")
        return _Config(title=str(title), fields=dict(fields), where=_place(("configs", index), self._lines))

    def _matrix(self) -> Iterator[Draft]:
        pairs = list(product(self._document.datasets, self._configs))
        left_out: set[int] = set()
        for index, entry in enumerate(self._document.exclude):
            matching = {
                number
                for number, (dataset, config) in enumerate(pairs)
                if entry.dataset in (None, dataset.title, dataset.path) and entry.config in (None, config.title)
            }
            if entry.dataset is None and entry.config is None:
                self._refuse("exclude", index, "Name a dataset, a config or both")
            elif not matching:
                self._refuse("exclude", index, f"No training has {self._missing(entry)}")
            else:
                left_out |= matching
        for number, (dataset, config) in enumerate(pairs):
            if number not in left_out:
                yield _draft(dataset, config, name=None, where=config.where)

    def _explicit(self) -> Iterator[Draft]:
        datasets = {name: found for found in self._document.datasets for name in (found.path, found.title)}
        configs = {config.title: config for config in self._configs}
        for index, entry in enumerate(self._document.trainings):
            where = _place(("trainings", index), self._lines)
            is_name = entry.dataset.model_fields_set == {"path"}
            dataset = datasets.get(entry.dataset.path, entry.dataset) if is_name else entry.dataset
            title = str(entry.config.get("name") or entry.config.get("preset") or "")
            config = _Config(title=title, fields=entry.config, where=where)
            if entry.config.keys() == {"preset"}:
                config = configs.get(title, config)
            yield _draft(dataset, config, name=entry.name, where=where)

    def _missing(self, entry: ExcludeEntry) -> str:
        """What no training has, with the names that are near it."""
        datasets = [name for found in self._document.datasets for name in (found.title, found.path)]
        parts = []
        for kind, name, known in (
            ("dataset", entry.dataset, datasets),
            ("config", entry.config, [config.title for config in self._configs]),
        ):
            if name is not None:
                near = "" if name in known else suggestion(name, known)
                parts.append(f"the {kind} '{name}'{near}")
        return " and ".join(parts)

    def _check_titles(self, part: str, titles: Sequence[str]) -> None:
        for index, title in enumerate(titles):
            if title and title in titles[:index]:
                first = _place((part, titles.index(title)), self._lines)
                self._refuse(part, index, f"It is called '{title}', as {first} is: give it another `name`")

    def _refuse(self, part: str, index: int, text: str) -> None:
        self._problems.append(Problem(where=_place((part, index), self._lines), text=f"{text}."))


def suggestion(name: str, known: Iterable[str]) -> str:
    """A question to be put behind an unknown name, or nothing."""
    meant = nearest(name, known, cutoff=0.7)
    return f", did you mean '{meant}'?" if meant else ""


def _draft(dataset: DatasetEntry, config: _Config, *, name: str | None, where: str) -> Draft:
    return Draft(
        dataset=dataset.path,
        dataset_name=dataset.title,
        trigger_word=dataset.trigger_word,
        config_name=config.title,
        fields=config.fields,
        name=name,
        where=where,
        config_at=config.where,
    )


def _structural(error: pydantic.ValidationError, lines: Lines) -> Iterator[Problem]:
    """What is wrong with the form of the document, by entry."""
    for item in error.errors():
        loc = item["loc"]
        size = 2 if len(loc) > 1 and isinstance(loc[1], int) else 1
        field = ".".join(str(part) for part in loc[size:])
        text = item["msg"].replace("a valid tuple", "a valid list").replace("a valid dictionary", "a valid mapping")
        text = text if text.endswith("?") else f"{text}."
        yield Problem(where=_place(loc[:size], lines), text=f"{field}: {text}" if field else text)


def _place(path: tuple[str | int, ...], lines: Lines) -> str:
    """As `configs[1] (line 12)`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    return f"{text} (line {lines[path]})" if path in lines else text


def _lines(text: str) -> Lines:
    """The line of each key and each item of a YAML text, from 1."""
    found: Lines = {}

    def note(node: Any, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*path, str(key.value))] = key.start_mark.line + 1
                note(value, (*path, str(key.value)))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                found[(*path, index)] = value.start_mark.line + 1
                note(value, (*path, index))

    note(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return found


def cannot_be_read(path: Path, reason: object) -> ValidationError:
    """That the file cannot be read at all."""
    return ValidationError(f"The batch file {path} cannot be read: {reason}.")
