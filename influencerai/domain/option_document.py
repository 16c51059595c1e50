"""Option document: a config's `meta` as it was sent, with the options that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from influencerai.domain.training_options import TrainingOptions
from influencerai.errors import ValidationError


class OptionDocument(dict[str, Any]):
    """`meta` as it was sent, with the options that it was validated as."""

    def __init__(self, document: Mapping[str, Any], options: TrainingOptions) -> None:
        super().__init__(document)
        self.options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.options)


def refuse_repeated(sources: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an option that has several values.

    Raises:
        ValidationError: names the places.
    """
    places: dict[str, list[str]] = {}
    for place, document in sources.items():
        for name in document:
            places.setdefault(name, []).append(place)
    repeated = {
        TrainingOptions._shown_name(name): [f"This has several values: by {' and by '.join(found)}"]
        for name, found in places.items()
        if len(found) > 1
    }
    if repeated:
        raise ValidationError(field_errors=repeated)
