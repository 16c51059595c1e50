"""What users can do, one method each, with every rule in one place. The edges call these and nothing else."""

from influencerai.service.answer import Answer
from influencerai.service.service import Service

__all__ = ["Answer", "Service"]
