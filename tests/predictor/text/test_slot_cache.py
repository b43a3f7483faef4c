"""What the cache of a batch takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from predictor.text.slot_cache import SlotCache

MIB = 2**20


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the resident memory")
def test_a_cache_on_a_cpu_takes_memory_as_it_fills() -> None:
    cache = SlotCache(layers=1, slots=64, length=65_536)
    cache.expect_prompts(0, 1, 0)
    before = resident()

    keys, _ = cache.update(torch.ones(1, 1, 4, 64), torch.ones(1, 1, 4, 64), 0)

    assert resident() - before < 64 * MIB, "not the 2 GiB that it may come to"
    assert keys.tolist() == torch.ones(1, 1, 4, 64).tolist()
    assert cache.layers[0].keys[0, 0, 3:8].sum() == 64, "what is not written is zero"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cache_has_the_type_of_the_model(dtype: torch.dtype) -> None:
    cache = SlotCache(layers=1, slots=2, length=8)
    cache.expect_prompts(0, 1, 0)

    cache.update(torch.ones(1, 3, 4, 16, dtype=dtype), torch.ones(1, 3, 4, 16, dtype=dtype), 0)

    assert cache.layers[0].values.dtype == dtype
    assert cache.layers[0].values.shape == (2, 3, 8, 16)
