"""Rows that join, leave and share forwards: each is told what the model would tell it alone."""

from __future__ import annotations

import ctypes
import mmap
import random
import sys
from typing import Any

import pytest
import torch

from predictor.text.batch import TextBatch
from predictor.text.cache.slot_cache import SlotCache
from predictor.text.row import TextRow
from predictor.text.sampling.batch_sampler import BatchSampler, Choice
from predictor.text.sampling.row_sampling import RowSampling
from tests.support.texts.batches import (
    ARCHITECTURES,
    LENGTH,
    VOCABULARY,
    AsOnGpu,
    CheckedAsOnGpu,
    CheckedBatch,
    ShortPrefills,
    Text,
    new_row,
    run_out,
    tiny,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    return ARCHITECTURES[request.param]()


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("Llama")


@pytest.mark.parametrize("kind", [CheckedBatch, CheckedAsOnGpu])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_join_and_leave_at_random_are_told_what_they_are_told_alone(
    model: Any, seed: int, kind: type[CheckedBatch]
) -> None:
    chance = random.Random(seed)
    batch = kind(model, slots=4, length=LENGTH)
    rows: list[Text] = []
    for _ in range(70):
        action = chance.random()
        if action < 0.25 and len(batch) < batch.slots:
            prompt = chance.randint(1, 30)
            stop = chance.choice([None, 7])
            rows.append(new_row(prompt, chance.randrange(1_000), chance.randint(1, LENGTH - prompt), stop=stop))
            batch.join(rows[-1])
        elif action < 0.32 and len(batch):
            batch.remove(chance.choice([*batch.running, *batch.joining]))
        elif len(batch):
            for row in batch.step():
                batch.remove(row)
    run_out(batch)

    assert batch.checked > 20
    assert not batch.running
    assert not batch.joining
    for row in rows:
        assert row.written == (row.answer if row.ended else row.answer[: len(row.written)])


def test_what_leaves_from_before_a_half_read_prompt_does_not_disturb_it(model: Any) -> None:
    batch = CheckedBatch(model, slots=3, length=LENGTH)
    first, second, long = new_row(3, 1), new_row(5, 2, most=12), new_row(30, 3, most=4)
    batch.join(first)
    batch.join(second)
    batch.step()
    batch.join(long)
    while not long.cached:
        batch.step()
    assert long in batch.joining

    batch.remove(first)

    assert long.cached < 30
    run_out(batch)
    assert len(long.tokens) == 34


def test_a_half_read_prompt_may_leave(model: Any) -> None:
    batch = CheckedBatch(model, slots=3, length=LENGTH)
    first, long, last = new_row(3, 1, most=20), new_row(30, 3), new_row(9, 4, most=4)
    batch.join(first)
    batch.step()
    batch.join(long)
    while not long.cached:
        batch.step()
    batch.join(last)

    batch.remove(long)
    run_out(batch)

    assert (len(first.tokens), len(last.tokens)) == (23, 13)


def test_a_row_that_leaves_and_comes_back_goes_on_where_it_was(model: Any) -> None:
    batch = CheckedBatch(model, slots=2, length=LENGTH)
    row, other = new_row(4, 1, most=12), new_row(6, 2, most=30)
    batch.join(row)
    batch.join(other)
    for _ in range(5):
        batch.step()
    written = list(row.tokens)

    batch.remove(row)
    batch.step()
    batch.join(row)
    run_out(batch)

    assert row.tokens[: len(written)] == written
    assert len(row.tokens) == 16


def test_running_rows_get_a_token_between_two_parts_of_a_long_prompt(llama: Any) -> None:
    batch = ShortPrefills(llama, slots=2, length=LENGTH)
    running, long = new_row(3, 1), new_row(32, 2)
    batch.join(running)
    batch.step()
    batch.join(long)

    lengths = []
    while long in batch.joining:
        batch.step()
        lengths.append(len(running.tokens))

    assert long.cached == 32
    assert lengths[-1] - lengths[0] == 3, "four parts of eight tokens, with a token of the other between any two"


def test_texts_that_end_together_move_none_of_each_other(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, int]] = []
    monkeypatch.setattr(SlotCache, "move", lambda _, source, target, length: moved.append((source, target)))
    batch = TextBatch(llama, slots=4, length=LENGTH)
    rows = [new_row(5, seed=0), *(new_row(5, seed=seed, most=1) for seed in (1, 2, 3))]
    for row in rows:
        batch.join(row)

    for ended in batch.step():
        batch.remove(ended)

    assert batch.running == rows[:1]
    assert moved == []


def test_a_text_may_fill_its_slot_to_the_last_token(llama: Any) -> None:
    batch = CheckedBatch(llama, slots=2, length=LENGTH)
    rows = [new_row(length, length, most=LENGTH - length) for length in (1, LENGTH - 1)]
    for row in rows:
        batch.join(row)

    run_out(batch)

    assert [len(row.tokens) for row in rows] == [LENGTH, LENGTH]


def test_the_cache_is_allocated_once_and_costs_what_it_says(llama: Any) -> None:
    batch = ShortPrefills(llama, slots=3, length=LENGTH)

    def places() -> list[int]:
        return [states.data_ptr() for layer in batch.cache.layers for states in (layer.keys, layer.values)]

    batch.join(new_row(3, most=2))
    run_out(batch)
    before = places()
    for seed in range(20):
        for _ in range(3):
            batch.join(new_row(seed % 9 + 1, seed, most=3))
        run_out(batch)

    assert places() == before
    assert batch.cache.bytes_per_token == 2 * 4 * 32 * 4, "keys and values, layers, hidden size, bytes"


def resident_bytes(states: torch.Tensor) -> int:
    """How much of the memory of a tensor the system has given."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = -(-states.nbytes // mmap.PAGESIZE)
    held = (ctypes.c_ubyte * pages)()
    if libc.mincore(ctypes.c_void_p(states.data_ptr()), ctypes.c_size_t(states.nbytes), held):
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(int(page) & 1 for page in held) * mmap.PAGESIZE


@pytest.mark.skipif(sys.platform != "linux", reason="counts Linux's pages")
def test_a_row_of_the_cache_takes_memory_for_the_tokens_that_it_has() -> None:
    cache = SlotCache(layers=2, slots=16, length=8_192)
    states = torch.zeros(16, 2, 30, 64)
    cache.expect_prompts(0, 16, 0)
    for layer in cache.layers:
        layer.update(states, states)
    tokens = 16 * 2 * -(-30 * 64 * 4 // mmap.PAGESIZE) * mmap.PAGESIZE  # each head of each row begins a page

    for layer in cache.layers:
        for held in (layer.keys, layer.values):
            assert held.nbytes == 64 * 2**20
            assert resident_bytes(held) == tokens, "and no huge pages"


@pytest.mark.parametrize("kind", [ShortPrefills, AsOnGpu])
@pytest.mark.parametrize("every", [97, pytest.param(11, marks=pytest.mark.nightly)])
def test_a_step_that_fails_anywhere_may_be_tried_again(llama: Any, every: int, kind: type[ShortPrefills]) -> None:
    """Out of memory at one operation of torch, in a run for each of `every` so many operations."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Failing(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed
        def __init__(self, at: int) -> None:
            super().__init__()
            self.left = at

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.left -= 1
            if self.left == -1:
                raise torch.OutOfMemoryError("no memory")
            return func(*args, **(kwargs or {}))

    def run(at: int, stop: int | None) -> tuple[list[list[int]], int]:
        batch = kind(llama, slots=3, length=LENGTH)
        rows = [new_row(2, 2, most=3, stop=stop), new_row(3, 3, most=3), new_row(12, 12, most=3)]
        for row in rows:
            batch.join(row)
        failures = 0
        failing = Failing(at)
        while len(batch):
            try:
                with failing:
                    done = batch.step()
            except torch.OutOfMemoryError:
                failures += 1
                continue
            for ended in done:
                batch.remove(ended)
        assert failures <= (failing.left < 0), "a step may fail unnoticed where it has found the end of a text"
        assert failures or stop is not None or failing.left >= 0
        assert [row.written for row in rows] == [row.answer for row in rows]
        return [row.tokens for row in rows], at - failing.left

    without = run(1_000_000, None)[0]
    for stop in (None, without[0][3]):
        expected, operations = run(1_000_000, stop)
        assert len(expected[0]) == (5 if stop is None else 4)
        assert operations > 500
        for at in range(0, operations, every):
            assert run(at, stop)[0] == expected, f"after a failure at operation {at}"


def test_on_a_gpu_a_text_is_written_while_the_next_token_is_computed(llama: Any) -> None:
    happened: list[str] = []

    class Watched(AsOnGpu):
        def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
            happened.append("computed")
            return super().choose(rows, logits, sampler)

    def told(row: Text, name: str) -> Text:
        write = row.write

        def writing(token: int) -> bool:
            happened.append(name)
            return write(token)

        row.write = writing
        return row

    without = new_row(4, 5, most=9)
    alone = AsOnGpu(llama, 1, LENGTH)
    alone.join(without)
    run_out(alone)
    batch = Watched(llama, slots=2, length=LENGTH)
    long = told(new_row(4, 5, stop=without.written[2]), "long")
    short = told(new_row(4, 6, most=2), "short")
    batch.join(long)
    batch.join(short)
    run_out(batch)

    assert happened == ["computed", "computed", "long", "short", "short", "computed", "long", "computed", "long"]
    assert short.written == short.answer
    assert long.written == long.answer == without.written[:3], "the token after the end was dropped"


@pytest.mark.parametrize("stops", [False, True])
def test_a_row_that_leaves_before_its_last_token_is_written_may_come_back(llama: Any, stops: bool) -> None:
    without = new_row(3, 4, most=6)
    alone = AsOnGpu(llama, 1, LENGTH)
    alone.join(without)
    run_out(alone)
    batch = AsOnGpu(llama, slots=2, length=LENGTH)
    leaves, stays = new_row(3, 4, most=6, stop=without.written[2] if stops else None), new_row(3, 2, most=6)
    batch.join(leaves)
    batch.join(stays)
    for _ in range(3):
        batch.step()
    assert (len(leaves.answer), len(leaves.written)) == (3, 2)

    batch.suspend(leaves)
    batch.step()
    batch.join(leaves)
    run_out(batch)

    assert leaves.written == leaves.answer == without.written[: 3 if stops else 6]
    assert stays.written == stays.answer
    assert len(stays.answer) == 6


def test_what_one_text_raises_ends_that_text_alone(llama: Any) -> None:
    for kind in (ShortPrefills, AsOnGpu):
        batch = kind(llama, slots=2, length=LENGTH)
        good, bad = new_row(3, 1, most=6), new_row(4, 2)
        error = ValueError("no such character")

        def raising(_: int, error: ValueError = error) -> bool:
            raise error

        bad.write = raising
        batch.join(bad)
        batch.join(good)
        run_out(batch)

        assert bad.failure is error
        assert good.failure is None
        assert len(good.written) == 6


def test_without_a_mask_logits_are_those_with_one(model: Any) -> None:
    """Rows of one length need none; a single row is one of them."""

    class Recording(AsOnGpu):
        def __init__(self, always_masks: bool) -> None:
            super().__init__(model, 3, LENGTH)
            self.always_masks = always_masks
            self.recorded: list[torch.Tensor] = []
            self.masked: list[bool] = []

        def _inputs(self, ids: Any, positions: Any, mask: Any) -> dict[str, Any]:
            self.masked.append(mask is not None)
            return super()._inputs(ids, positions, mask)

        def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
            self.recorded.append(logits.clone())
            return super().choose(rows, logits, sampler)

    batches = [Recording(True), Recording(False)]
    for batch in batches:
        for seed in range(3):
            batch.join(new_row(2, seed, most=12, temperature=0.0))
        run_out(batch)

    with_masks, without = batches
    assert with_masks.masked == [False] + 11 * [True]
    assert without.masked == 12 * [False]
    assert len(with_masks.recorded) == len(without.recorded)
    for masked, plain in zip(with_masks.recorded, without.recorded, strict=True):
        torch.testing.assert_close(plain, masked, rtol=1e-3, atol=1e-3)


def generated(model: Any, prompt: list[int], penalty: float, tokens: int) -> list[int]:
    """What transformers' `generate` writes; prompt included."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=[],
            pad_token_id=0,
        )
    return list(whole[0].tolist())


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_join_and_leave_at_random_are_penalized_for_their_own_tokens(llama: Any, seed: int) -> None:
    chance = random.Random(seed)
    batch = ShortPrefills(llama, slots=4, length=LENGTH)
    whole: list[tuple[TextRow, list[int], float]] = []

    def join() -> None:
        prompt = [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 20))]
        penalty = chance.choice([1.0, 1.3, 2.5])
        most = len(prompt) + chance.randint(1, 25)
        row = TextRow(prompt, RowSampling(0.0, 0, 1.0, 0.0, penalty, chance), lambda _: len(row.tokens) >= most)
        whole.append((row, list(prompt), penalty))
        batch.join(row)

    for _ in range(90):
        if chance.random() < 0.3 and len(batch) < batch.slots:
            join()
        elif chance.random() < 0.1 and batch.running:
            back = chance.choice(batch.running)
            batch.remove(back)
            batch.join(back)
        elif len(batch):
            for row in batch.step():
                batch.remove(row)
    while len(batch):
        for row in batch.step():
            batch.remove(row)

    assert len(whole) > 8
    for row, prompt, penalty in whole:
        assert row.tokens == generated(llama, prompt, penalty, len(row.tokens) - len(prompt))
