"""Cleanup beside a training: it ends with the bytes of a run that nothing has disturbed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from influencerai.service.cleanup import CleanupRules
from tests.worker.workplace import Workplace, on_sqlite


@pytest.mark.campaign
@on_sqlite
def test_cleaning_up_all_the_time_disturbs_no_training(place: Workplace) -> None:
    first = place.submit()
    place.wait(first)
    id = place.submit()
    rounds = 0
    while place.job(id).status in ("pending", "running"):
        report = place.ask(lambda service: service.cleanup.run(CleanupRules(older_than=timedelta(0))))
        assert report.problems == []
        rounds += 1
    assert rounds > 1
    place.check_undisturbed(id)
