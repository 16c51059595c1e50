"""Problem: an error as data, for a job's result, its attempts and its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from influencerai.errors import InfluencerAIError


@dataclass(frozen=True)
class Problem:
    """The message of an error, its stable code and a remedy."""

    message: str
    """With the remedy, for readers of the message alone."""
    code: str
    remedy: str | None = None

    @classmethod
    def of(cls, error: InfluencerAIError) -> Self:
        """An error of this package; without a remedy of its own it has the advice of its class."""
        return cls(message=str(error), code=error.code, remedy=error.remedy or error.advice)

    def to_wire(self) -> dict[str, Any]:
        """As fields of a result or an event."""
        return {"error": self.message, "code": self.code, "remedy": self.remedy}


CANCELLATION = Problem("Cancelled", "cancelled", "Retry the job to go on from its last state.")
"""The problem of every cancelled job."""
