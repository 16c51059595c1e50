"""One thread per operation in tests: small models gain nothing from more, and a busy machine loses much."""

import gc
import os
import secrets
import signal

import torch

torch.set_num_threads(1)
os.environ |= {"OMP_NUM_THREADS": "1", "INFLUENCERAI_THREADS": "1"}  # for what tests start
# Read when Ray is imported: every cluster of the tests wants a token.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

# Shells start what runs in the background with SIGINT ignored, and the programs of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.databases"]


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later garbage collection: a million objects, which all stay."""
    gc.collect()
    gc.freeze()
