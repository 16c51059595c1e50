"""The creation time that SOURCE_DATE_EPOCH gives a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from influencerai.errors import ValidationError
from influencerai.train.preparation import prepare
from tests.small_models import small_sd15
from tests.training_runs import make_config, make_settings, write_dataset


@pytest.mark.parametrize("value", ["abc", "99999999999999999", "9" * 30])
def test_a_creation_time_that_is_none_names_the_variable(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    dataset, config = write_dataset(tmp_path / "dataset"), make_config(small_sd15(tmp_path / "sd15"))
    with pytest.raises(ValidationError, match="SOURCE_DATE_EPOCH: Input should be seconds since 1970"):
        prepare(config, dataset, settings=make_settings(tmp_path))
