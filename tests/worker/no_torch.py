"""Imported by a fork server: a machine on which torch is not installed."""

import sys

sys.modules["torch"] = None  # type: ignore[assignment] # makes an import fail
