"""What a processor can do, by the lines of /proc/cpuinfo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from influencerai.training_plan.processor import has_bf16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("processor : 0\nflags\t\t: fpu avx2 amx_bf16 amx_tile\n", True),
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512vl\n", False),
        ("Features\t: fp asimd bf16\n", True),
        ("Features\t: fp asimd\n", False),
        ("flags : avx512_bf16\n\nflags : avx2\n", False),
        ("", True),
    ],
    ids=["avx512_bf16", "amx", "avx512 alone", "arm", "old arm", "one core without", "nothing known"],
)
def test_bf16_by_the_features(text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert has_bf16(tmp_path / "cpuinfo") is expected


def test_a_system_without_the_file(tmp_path: Path) -> None:
    assert has_bf16(tmp_path / "absent")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_torch_agrees_on_this_machine() -> None:
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert has_bf16() == native or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512", "DEFAULT")
