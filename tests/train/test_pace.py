"""A busy machine: threads wait without spinning for long, and slow steps are explained once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from influencerai.train.pace import Pace


def waiting(code: str, **environment: str) -> str:
    """What a fresh process with these variables prints."""
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys\n{code}\nprint(os.environ.get('GOMP_SPINCOUNT'))"],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_waiting_is_set_before_torch_is_loaded() -> None:
    assert waiting("import influencerai.train\nassert 'torch' not in sys.modules") == "1000"


def test_what_the_user_chose_stays() -> None:
    assert waiting("import influencerai.train", GOMP_SPINCOUNT="7") == "7"
    assert waiting("import influencerai.train", OMP_WAIT_POLICY="active") == "None"


def test_it_is_too_late_after_torch() -> None:
    assert waiting("sys.modules['torch'] = os\nimport influencerai.train") == "None"


@pytest.fixture
def quiet() -> Pace:
    return Pace(threads=2, cores=2, clock=lambda: 0.0, load=lambda: 1.0)


def test_steady_steps_are_not_mentioned(quiet: Pace) -> None:
    assert [quiet.add(1.0, images=1) for _ in range(50)] == [None] * 50


def test_steps_that_become_much_slower_are_explained_once(quiet: Pace) -> None:
    for _ in range(10):
        assert quiet.add(0.2, images=1) is None
    said = [text for text in (quiet.add(1.4, images=1) for _ in range(20)) if text]
    assert len(said) == 1
    assert "7 times as long" in said[0]
    assert "INFLUENCERAI_THREADS=1" in said[0]


def test_one_slow_step_and_larger_batches_are_not_mentioned(quiet: Pace) -> None:
    steps = [(0.2, 1)] * 10 + [(9.0, 1)] + [(0.2, 1)] * 10 + [(1.2, 6)] * 10
    assert not any(quiet.add(seconds, images=images) for seconds, images in steps)


def test_a_run_that_is_slow_from_its_first_step_is_explained() -> None:
    pace = Pace(threads=2, cores=2, clock=iter([0.0, 6.0]).__next__, load=lambda: 9.0)
    said = [pace.add(5.0, images=1) for _ in range(5)]
    assert said[:4] == [None] * 4
    assert "other programs use the cores" in str(said[4])
