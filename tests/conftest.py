"""One thread per operation in tests: small models gain nothing from more, and a busy machine loses much."""

import torch

torch.set_num_threads(1)

pytest_plugins = ["tests.databases"]
