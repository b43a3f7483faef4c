"""The real engine with many at once: who shares a batch with whom makes no difference to anyone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import problems
from contract.problems import ProblemError
from contract.texts.sampling import Sampling
from predictor.engine import admission_queue
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.events import Started, TextFinished, Token
from predictor.engine.generation import Completion, Generation
from predictor.engine.tasks import TextTask
from predictor.text.checkpoint import Checkpoint
from predictor.text.output.text_output import TextOutput
from predictor.text.transformers_engine import TransformersEngine
from tests.support.engine_cores import held
from tests.support.waiting import SECONDS, eventually, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def eight(tiny_model: Path) -> Iterator[TransformersEngine]:
    """Eight slots, and more places in the queue than a test needs."""
    engine = TransformersEngine(EngineSettings(model=str(tiny_model), max_concurrency=8, max_waiting=500))
    engine.load(lambda _phase: None)
    yield engine
    assert engine.alive, "the engine survived every test"
    engine.close()


def task(prompt: str = "moon", **sampling: Any) -> TextTask:
    return TextTask(prompt, Sampling(**{"max_tokens": 20, "temperature": 1.0} | sampling))


async def write(engine: TransformersEngine, prompt: str = "moon", **sampling: Any) -> Completion:
    return await (await engine.submit(task(prompt, **sampling))).complete()


async def first_token(generation: Generation) -> None:
    async for event in generation:
        if isinstance(event, Token):
            return


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[Generation]:
    """The generation of every token that is written."""
    written: list[Generation] = []
    put = TextOutput.put

    def recording(self: TextOutput, token: int) -> bool:
        written.append(self.generation)
        return put(self, token)

    monkeypatch.setattr(TextOutput, "put", recording)
    return written


@pytest.mark.parametrize("count", [24, pytest.param(100, marks=pytest.mark.nightly)])
async def test_the_same_seed_writes_the_same_text_alone_in_a_batch_in_another_order_and_joined_late(
    eight: TransformersEngine, count: int
) -> None:
    trials = range(count)
    prompts = [("moon", "hello sun " * 3, "床前明月光", "s")[seed % 4] for seed in trials]
    limits = [3 + seed * 7 % 30 for seed in trials]

    async def trial(seed: int) -> str:
        return (await write(eight, prompts[seed], seed=seed, max_tokens=limits[seed])).text

    async def all_of(seeds: list[int]) -> dict[int, str]:
        return dict(zip(seeds, await asyncio.gather(*map(trial, seeds)), strict=True))

    alone = {seed: await trial(seed) for seed in trials}
    in_eights: dict[int, str] = {}
    for start in range(0, count, 8):
        in_eights |= await all_of(list(trials[start : start + 8]))
    shuffled = random.Random(0).sample(trials, count)
    in_another_order = await all_of(shuffled)
    late: dict[int, str] = {}
    for seed in trials:
        neighbour = await eight.submit(task("hello", seed=seed, max_tokens=200))
        await first_token(neighbour)
        late[seed] = await trial(seed)
        neighbour.close()

    for name, texts in (("a batch of 8", in_eights), ("another order", in_another_order), ("joined late", late)):
        same = sum(texts[seed] == alone[seed] for seed in trials)
        print(f"{name}: {same} of {count} texts are the same as alone")
        assert same == count, name
    assert len(set(alone.values())) > 0.9 * count


async def test_a_short_one_joins_a_running_batch_and_is_done_before_it(
    eight: TransformersEngine, puts: list[Generation]
) -> None:
    with held(eight.core, after=10):  # so that the long one cannot be done before the short one comes
        long = await eight.submit(task(max_tokens=250, temperature=0.0))
        await first_token(long)
        short = await eight.submit(task(max_tokens=2))
    await asyncio.gather(long.complete(), short.complete())

    assert short in puts
    assert puts[-1] is long, "the long one goes on when the short one is done"


async def test_each_has_its_own_stop_sequences_and_its_own_limit(eight: TransformersEngine) -> None:
    plain = [(await write(eight, seed=seed, max_tokens=60)).text for seed in range(8)]
    stops = [text[len(text) // 2 - 2 : len(text) // 2 + 2] for text in plain]

    stopped = await asyncio.gather(
        *(write(eight, seed=seed, max_tokens=60, stop=[stop]) for seed, stop in enumerate(stops))
    )
    limited = await asyncio.gather(*(write(eight, seed=seed, max_tokens=seed + 1) for seed in range(8)))

    for text, stop, completion in zip(plain, stops, stopped, strict=True):
        assert completion.text == text[: text.index(stop)]
        assert completion.end.finish_reason == "stop"
    assert [completion.end.completion_tokens for completion in limited] == list(range(1, 9))


@pytest.mark.parametrize("count", [8, pytest.param(40, marks=pytest.mark.nightly)])
async def test_texts_and_their_ends_are_the_same_where_they_are_written_a_step_later_as_on_a_gpu(
    eight: TransformersEngine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    plain = [(await write(eight, seed=seed, max_tokens=40)).text for seed in range(count)]
    asked: list[dict[str, Any]] = [{"seed": seed, "max_tokens": 5 + seed} for seed in range(count)]
    stops = {seed: text[8:11] for seed, text in enumerate(plain) if len(text) > 10}
    asked += [{"seed": seed, "max_tokens": 40, "stop": [stop]} for seed, stop in stops.items()]
    asked += [{"seed": seed, "max_tokens": 200, "temperature": 2.0} for seed in range(count)]  # some end by themselves

    async def all_of() -> list[tuple[str, TextFinished]]:
        completions = await asyncio.gather(*(write(eight, **each) for each in asked))
        return [(completion.text, completion.end) for completion in completions]

    at_once = await all_of()
    monkeypatch.setattr(eight.core.batch, "defers_texts", True)

    assert await all_of() == at_once
    assert {end.finish_reason for _, end in at_once} == {"stop", "length"}


async def test_the_first_of_a_burst_waits_for_those_whose_prompts_are_being_read(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_queue, "ARRIVING_SECONDS", SECONDS)
    engine = await start_engine(max_concurrency=8)
    core = engine.core
    encode, step = Checkpoint.encode, core.batch.step
    stepped: list[int] = []

    def encoding(self: Checkpoint, prompt: Any, *arguments: Any) -> Any:
        if prompt != "first":
            wait_until(lambda: core.scheduler.snapshot().tasks, "the first has a slot")
        return encode(self, prompt, *arguments)

    def stepping() -> Any:
        stepped.append(len(core.batch))
        return step()

    monkeypatch.setattr(Checkpoint, "encode", encoding)
    monkeypatch.setattr(core.batch, "step", stepping)
    await asyncio.gather(*(write(engine, prompt, max_tokens=2) for prompt in ["first", *"abcd"]))

    assert stepped[0] == 5


async def test_the_text_comes_in_pieces_while_it_is_written(eight: TransformersEngine) -> None:
    generations = [await eight.submit(task(seed=seed, max_tokens=30)) for seed in range(8)]

    for seed, generation in enumerate(generations):
        started, *pieces, end = [event async for event in generation]
        assert isinstance(started, Started)
        assert isinstance(end, TextFinished)
        assert len(pieces) > 5
        text = "".join(piece.text for piece in pieces if isinstance(piece, Token))
        assert text == (await write(eight, seed=seed, max_tokens=30)).text


async def test_a_short_one_is_served_before_the_long_ones_that_wait(start_engine: Any, puts: list[Generation]) -> None:
    engine = await start_engine(max_concurrency=1)
    puts.clear()  # of the warm-up
    with held(engine.core):
        running = await engine.submit(task(max_tokens=5))
        await eventually(lambda: engine.core.admission.running == 1)  # else the next turn is that of the longest
        long = await engine.submit(task(max_tokens=200, temperature=0.0))
        short = await engine.submit(task(max_tokens=3))
    await asyncio.gather(running.complete(), long.complete(), short.complete())

    assert list(dict.fromkeys(puts)) == [running, short, long]


async def test_closing_frees_the_slot_within_a_token(start_engine: Any, puts: list[Generation]) -> None:
    engine = await start_engine(max_concurrency=1)
    with held(engine.core, after=10):
        leaves = await engine.submit(task(max_tokens=250, temperature=0.0))
        await eventually(lambda: puts.count(leaves) == 10)
        waits = await engine.submit(task(max_tokens=3))
        leaves.close()
    await waits.complete()

    assert puts.count(leaves) <= 11, "tokens computed for nobody"
    await eventually(lambda: engine.core.idle)


async def test_a_hundred_that_leave_leave_nothing_behind(eight: TransformersEngine) -> None:
    chance = random.Random(1)
    for _ in range(100):
        generation = await eight.submit(task("hello " * chance.randint(1, 20), max_tokens=200))
        if chance.random() < 0.5:
            await first_token(generation)
        generation.close()

    await eventually(lambda: eight.core.idle)
    assert (await write(eight, seed=1)).end.completion_tokens > 0


async def test_what_is_closed_while_it_waits_is_never_begun(start_engine: Any, puts: list[Generation]) -> None:
    engine = await start_engine(max_concurrency=1)
    puts.clear()
    with held(engine.core):
        running = await engine.submit(task(max_tokens=3))
        waiting = [await engine.submit(task(max_tokens=3)) for _ in range(5)]
        for generation in waiting:
            generation.close()
    await running.complete()

    await eventually(lambda: engine.core.idle)
    assert set(puts) == {running}


async def test_of_300_at_once_exactly_those_are_served_that_are_let_in(start_engine: Any) -> None:
    engine = await start_engine(max_concurrency=8, max_waiting=32)
    refusals: list[ProblemError] = []

    async def one(seed: int) -> Completion | None:
        try:
            generation = await engine.submit(task(seed=seed, max_tokens=3))
        except ProblemError as problem:
            refusals.append(problem)
            return None
        completion: Completion = await generation.complete()
        return completion

    with held(engine.core):
        everyone = [asyncio.create_task(one(seed)) for seed in range(300)]
        await eventually(lambda: len(refusals) == 260)
    completions = [completion for completion in await asyncio.gather(*everyone) if completion]

    assert (len(completions), len(refusals)) == (40, 260)
    assert all(problem.kind is problems.OVERLOADED for problem in refusals)
    assert all(int(problem.headers["Retry-After"]) >= 1 for problem in refusals)
    assert all(completion.end.completion_tokens > 0 for completion in completions)


async def test_one_that_is_over_may_be_followed_by_the_next_at_once(start_engine: Any) -> None:
    """The place is free before its client knows that it is done."""
    engine = await start_engine(max_concurrency=1, max_waiting=0)

    for seed in range(100):
        await write(engine, seed=seed, max_tokens=2)


async def test_what_cannot_be_done_in_time_is_refused_at_once(start_engine: Any) -> None:
    engine = await start_engine(max_concurrency=1)
    engine.core.admission.service_time.learn(1_000)
    with held(engine.core):
        running = await engine.submit(task(max_tokens=3))

        with pytest.raises(ProblemError, match="the request gives it") as refused:
            await engine.submit(TextTask("moon", Sampling(max_tokens=3), seconds=5))

    assert refused.value.kind is problems.OVERLOADED
    assert (await running.complete()).end.completion_tokens == 3


async def test_a_closed_engine_tells_everyone(start_engine: Any) -> None:
    engine = await start_engine(max_concurrency=2)
    with held(engine.core):
        generations = [await engine.submit(task(max_tokens=200)) for _ in range(5)]
        coming = [asyncio.create_task(engine.submit(task())) for _ in range(3)]
        await asyncio.sleep(0)
        engine.close()

    for generation in generations:
        with pytest.raises(ProblemError, match="shutting down") as problem:
            await generation.complete()
        assert problem.value.kind is problems.UNAVAILABLE
    for result in await asyncio.gather(*coming, return_exceptions=True):
        assert isinstance(result, ProblemError)
    with pytest.raises(ProblemError, match="shutting down"):
        await engine.submit(task())
    await eventually(lambda: not engine.alive)
