"""Services: one method for each thing that a user can do, with every rule in one place. Edges call nothing else."""

from influencerai.service.answer import Answer
from influencerai.service.service import Service

__all__ = ["Answer", "Service"]
