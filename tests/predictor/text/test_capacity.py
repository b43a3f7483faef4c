"""How many slots of which length fit into how much memory, and what the cache of a batch takes of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from predictor.engine.memory.slot_plan import MARGIN, PROCESS_BYTES, Cost
from predictor.errors import ModelError
from predictor.loading.device_memory import available_memory, memory_share
from predictor.text.batch import TextBatch
from predictor.text.cache.slot_cache import SlotCache
from predictor.text.capacity import measure_cost, plan_slots
from predictor.text.checkpoint import Checkpoint, load_checkpoint
from predictor.text.rope_scaling import scaled_context, unscaled_length

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return load_checkpoint(str(tiny_model), "cpu", "auto", lambda _phase: None)


TOKEN_BYTES = 2 * 2 * 64 * 4
"""Keys and values of a token: two layers, hidden size 64, float32."""

PREFILL_ROW = (8 * 64 + 3 * 256) * 4
"""Working memory of a token in a forward: hidden size 64, and four times that for its widest layer."""


def test_the_cost_of_the_tiny_model_is_what_one_counts_by_hand(checkpoint: Checkpoint) -> None:
    cost = measure_cost(checkpoint.model, length=256, prefill_tokens=100, process_bytes=7)

    embedding = 400 * 64
    layer = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64
    frequencies = 2 * 16 // 2  # of the rotary embedding, which keeps them twice
    assert cost.weights == 4 * (2 * embedding + 2 * layer + 64 + frequencies)
    assert cost.once == 100 * PREFILL_ROW + 7
    assert cost.slot == 256 * (TOKEN_BYTES + 8) + PREFILL_ROW + 10 * 400 * 4


def test_the_counted_keys_and_values_are_those_that_a_batch_allocates(checkpoint: Checkpoint) -> None:

    from predictor.text.row import TextRow
    from predictor.text.sampling.row_sampling import RowSampling

    batch = TextBatch(checkpoint.model, slots=3, length=64)
    batch.join(TextRow([5, 6], RowSampling.greedy(), lambda _: True))
    batch.step()

    allocated = sum(states.nbytes for layer in batch.cache.layers for states in (layer.keys, layer.values))

    assert allocated == 3 * 64 * TOKEN_BYTES
    assert batch.cache.bytes_per_token == TOKEN_BYTES


def test_slots_and_memory_are_each_others_inverse() -> None:
    cost = Cost(weights=100 * MIB, once=10 * MIB, slot=3 * MIB)
    for slots in range(1, 200):
        memory = cost.memory_for(slots)
        assert cost.slots_in(memory + 1) == slots
        assert cost.slots_in(memory - cost.slot // 2) == slots - 1
    assert cost.slots_in(0) == 0


def test_what_fits_is_served(checkpoint: Checkpoint) -> None:
    cost = measure_cost(checkpoint.model, 256, 512, PROCESS_BYTES)
    memory = cost.memory_for(5) + 1

    plan = plan_slots(checkpoint, max_length=8192, max_concurrency=16, memory=memory)

    assert (plan.slots, plan.of, plan.cost) == (5, "256 tokens", cost)
    assert plan.slots * cost.slot + cost.weights + cost.once <= memory * (1 - MARGIN)
    assert str(plan).startswith("5 slots of 256 tokens: 0.5 MiB of weights, ")


def test_a_gpu_reads_longer_parts_of_prompts_and_the_plan_counts_them(checkpoint: Checkpoint) -> None:
    on_gpu = replace(checkpoint, device=torch.device("cuda"))

    plans = [plan_slots(each, max_length=8192, max_concurrency=16, memory=2**40) for each in (checkpoint, on_gpu)]

    assert [plan.cost.once for plan in plans] == [512 * PREFILL_ROW + PROCESS_BYTES, 2048 * PREFILL_ROW]
    assert TextBatch(checkpoint.model, slots=1, length=64).prefill_tokens == 512


def test_max_concurrency_and_max_length_are_limits_and_not_wishes(checkpoint: Checkpoint) -> None:
    plan = plan_slots(checkpoint, max_length=8192, max_concurrency=3, memory=2**40)
    assert (plan.slots, plan.of) == (3, "256 tokens")

    plan = plan_slots(checkpoint, max_length=100, max_concurrency=3, memory=2**40)
    assert plan.of == "100 tokens"


def test_a_gpu_has_as_many_slots_as_its_memory_holds_and_a_cpu_no_more_than_pay(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = replace(checkpoint, device=torch.device("cuda:0"))
    some = measure_cost(checkpoint.model, 256, 2048, 0).memory_for(99) + 1

    assert plan_slots(checkpoint, 256, None, 2**40).slots == 64, "of a small model"
    monkeypatch.setattr("predictor.text.capacity.SMALL_MODEL_BYTES", 1)
    assert plan_slots(checkpoint, 256, None, 2**40).slots == 16
    assert [plan_slots(on_gpu, 256, None, memory).slots for memory in (2**40, some)] == [256, 99]
    assert plan_slots(on_gpu, 256, 300, 2**40).slots == 300


def test_shorter_texts_cost_less_so_more_fit(checkpoint: Checkpoint) -> None:
    cost = measure_cost(checkpoint.model, 256, 512, PROCESS_BYTES)
    memory = cost.memory_for(4)

    assert plan_slots(checkpoint, 64, 100, memory).slots > plan_slots(checkpoint, 256, 100, memory).slots


def test_memory_that_does_not_hold_one_text_is_one_line_with_the_numbers(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError) as refused:
        plan_slots(checkpoint, max_length=8192, max_concurrency=8, memory=500 * MIB)

    need = measure_cost(checkpoint.model, 256, 512, PROCESS_BYTES).memory_for(1) / MIB
    assert str(refused.value) == (
        f"500.0 MiB of memory do not hold the model and one slot of 256 tokens, which take {need:.1f} MiB; "
        "give it more, or a smaller --max-length"
    )


@pytest.fixture
def cgroup(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], int]:
    """What is available when the kernel's files of these names say this; 64 GiB are installed."""

    def available(files: dict[str, str]) -> int:
        class Files(type(Path())):  # type: ignore[misc]
            def read_text(self, *_: Any, **__: Any) -> str:
                if (name := self.name) in files:
                    return files[name]
                raise FileNotFoundError(name)

        monkeypatch.setattr("predictor.loading.device_memory.Path", Files)
        monkeypatch.setattr(
            "predictor.loading.device_memory.os.sysconf", lambda name: 2**24 if name == "SC_PHYS_PAGES" else 4096
        )
        return available_memory(torch.device("cpu"))

    return available


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 2**36),
        ({"memory.max": "max\n"}, 2**36),
        ({"memory.max": "1073741824\n"}, 2**30),
        ({"memory.limit_in_bytes": "9223372036854771712\n"}, 2**36),
        ({"memory.limit_in_bytes": "2147483648\n"}, 2**31),
        ({"memory.max": "rubbish"}, 2**36),
    ],
)
def test_a_container_has_what_its_cgroup_gives_it(
    cgroup: Callable[[dict[str, str]], int], files: dict[str, str], expected: int
) -> None:
    assert cgroup(files) == expected


@pytest.mark.parametrize(("memory", "expected"), [(None, 8 * 2**30), (4 * 2**30, 4 * 2**30), (16 * 2**30, 8 * 2**30)])
def test_a_part_of_the_memory_is_no_more_than_there_is(
    monkeypatch: pytest.MonkeyPatch, memory: int | None, expected: int
) -> None:
    monkeypatch.setattr("predictor.loading.device_memory.available_memory", lambda _device: 8 * 2**30)
    assert memory_share(torch.device("cpu"), memory) == expected


def test_on_a_gpu_torch_keeps_to_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has 14 of 24 GiB, and 13 were promised."""
    limits: list[tuple[float, torch.device]] = []
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _device: (10 * 2**30, 24 * 2**30))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _device: 0)
    monkeypatch.setattr(
        "torch.cuda.set_per_process_memory_fraction", lambda part, device: limits.append((part, device))
    )
    gpu = torch.device("cuda", 0)
    assert memory_share(gpu, None) == 10 * 2**30
    assert limits == []
    assert memory_share(gpu, 13 * 2**30) == 10 * 2**30
    assert limits == [(13 / 24, gpu)]


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


DYNAMIC = {"rope_type": "dynamic", "factor": 2.5}
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 40, "short_factor": [1.0], "long_factor": [4.0]}
DEFAULT = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("parameters", "unscaled", "context"),
    [
        (None, None, 100),
        ({}, None, 100),
        (DEFAULT, None, 100),
        ({"rope_type": "yarn", "factor": 4.0}, None, 100),
        (LONG, 40, 100),
        (DYNAMIC, 100, 250),
        ({"sliding_attention": DEFAULT, "full_attention": DEFAULT}, None, 100),
        ({"sliding_attention": DEFAULT, "full_attention": DYNAMIC}, 100, 250),
        ({"sliding_attention": DYNAMIC, "full_attention": LONG}, 40, 250),
    ],
)
def test_the_shortest_limit_of_all_layers_counts(
    parameters: dict[str, Any] | None, unscaled: int | None, context: int
) -> None:
    config = SimpleNamespace(rope_parameters=parameters, max_position_embeddings=100)

    assert unscaled_length(config) == unscaled
    assert scaled_context(config) == context


def test_a_model_without_positions_has_no_limit() -> None:
    assert unscaled_length(SimpleNamespace()) is None
    assert scaled_context(SimpleNamespace()) is None
