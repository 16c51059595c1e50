"""The tensor cache: what is put is got, what is damaged is absent, the oldest goes first."""

import os
from pathlib import Path

import pytest
import torch

from influencerai.train.data.cache import TensorCache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_tensors_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    cache = TensorCache(tmp_path)
    tensors = {"mean": torch.randn(4, 3, 5).to(dtype), "std": torch.randn(1).to(dtype)}
    cache.put(TensorCache.key(image="a"), tensors)
    found = cache.get(TensorCache.key(image="a"))
    assert found is not None
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == dtype for name in tensors)
    assert cache.get(TensorCache.key(image="b")) is None


def test_keys_differ_by_every_part_and_not_by_their_order() -> None:
    assert TensorCache.key(a=1, b=[2]) == TensorCache.key(b=[2], a=1)
    assert len({TensorCache.key(a=1), TensorCache.key(a=2), TensorCache.key(b=1), TensorCache.key(a="1")}) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "zeros"])
def test_a_damaged_entry_counts_as_absent(tmp_path: Path, damage: str) -> None:
    cache = TensorCache(tmp_path)
    key = TensorCache.key(image="a")
    cache.put(key, {"mean": torch.ones(64)})
    [path] = tmp_path.glob("*/*.tensors")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    damaged = {"cut": data[:-7], "flip": data, "empty": bytearray(), "zeros": bytearray(len(data))}
    path.write_bytes(damaged[damage])
    assert cache.get(key) is None


def test_the_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, max_bytes=3000)
    keys = [TensorCache.key(image=index) for index in range(5)]
    for age, key in enumerate(keys):
        cache.put(key, {"mean": torch.zeros(200)})
        path = tmp_path / key[:2] / f"{key}.tensors"
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.get(keys[0]) is not None
    assert cache.prune() > 0
    present = [cache.get(key) is not None for key in keys]
    assert present[0]
    assert present == [True, False, False, True, True] or present == [True, False, False, False, True]
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.tensors")) <= 3000
