"""Waiting: how threads of one operation wait for each other, set before torch reads it, when it is loaded.

OpenMP's threads spin at the end of every operation. Beside other busy processes each spins for as long as the other has
no core, and a step takes ten times as long or more. A bounded spin, after which a thread sleeps, changes neither the
number of threads nor what they compute.
"""

from __future__ import annotations

import os
import sys

_VARIABLES = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""Rounds that GNU's threads spin, a few microseconds; milliseconds that LLVM's do."""
_CHOICES = frozenset({"OMP_WAIT_POLICY", *_VARIABLES})


def bound_spinning() -> bool:
    """Let waiting threads sleep soon, unless the user has chosen how they wait; False where torch is loaded already."""
    if "torch" in sys.modules:
        return False
    if not _CHOICES & os.environ.keys():
        os.environ.update(_VARIABLES)
    return True


def spins_on() -> bool:
    """Whether threads of this process may spin for long, since torch was loaded before `bound_spinning`."""
    return not _CHOICES & os.environ.keys()
