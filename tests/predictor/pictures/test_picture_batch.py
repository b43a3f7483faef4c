"""Pictures that are made together: who shares a forward with whom makes no difference to anyone."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from typing import Any

import pytest
import torch
from greenlet import getcurrent

from contract import problems
from contract.problems import ProblemError
from predictor.engine.events import Progress, Started
from predictor.engine.generation import Generation
from predictor.pictures.batch import PictureBatch, PictureRow
from tests.support.engine_cores import held
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

TOLERANCE = 1
"""Of 255: another number of rows is another order of adding up in a CPU's kernels."""

PAINTINGS: list[dict[str, Any]] = [
    {"prompt": "a cat", "seed": 1, "steps": 4},
    {"prompt": "red apple", "seed": 2, "steps": 7, "guidance": 2.0},
    {"prompt": "画一只猫", "seed": 3, "steps": 5, "negative_prompt": "dog"},
    {"prompt": "moon", "seed": 4, "steps": 3, "guidance": 9.5},
]


async def begun(generation: Generation, step: int = 1) -> None:
    async for event in generation:
        if isinstance(event, Progress) and event.step >= step:
            return


async def alone(picture_harness: Any, painted: Any, paintings: list[dict[str, Any]]) -> list[Any]:
    """The pictures, one after the other."""
    single = picture_harness(slots=1)
    single.start()
    return [one.image for painting in paintings for one in await painted(await single.submit(**painting))]


async def test_the_same_seed_makes_the_same_picture_alone_in_a_batch_in_another_order_and_joined_late(
    picture_harness: Any, painted: Any, apart: Any
) -> None:
    expected = await alone(picture_harness, painted, PAINTINGS)
    busy = picture_harness()
    generations = [await busy.submit(**painting) for painting in PAINTINGS]
    busy.start()
    in_a_batch = [one.image for one in await painted(*generations)]
    assert max(busy.forwards) == 8, "four pictures with guidance shared a forward"

    shuffled = random.Random(0).sample(range(4), 4)
    generations = [await busy.submit(**PAINTINGS[number]) for number in shuffled]
    made = [one.image for one in await painted(*generations)]
    in_another_order = [made[shuffled.index(number)] for number in range(4)]

    late = []
    for painting in PAINTINGS:
        with held(busy.core, after=3):
            neighbour = await busy.submit("dog", steps=50)
            await begun(neighbour, 2)
            joined = await busy.submit(**painting)
        late += [one.image for one in await painted(joined)]
        neighbour.close()

    for name, pictures in (("a batch", in_a_batch), ("another order", in_another_order), ("joined late", late)):
        worst = max(map(apart, pictures, expected))
        print(f"{name}: at most {worst} of 255 from alone")
        assert worst <= TOLERANCE, name
    assert min(apart(expected[0], other) for other in expected[1:]) > 20, "they are different pictures"


async def test_it_is_the_picture_that_diffusers_makes_bit_by_bit(
    picture_harness: Any, painted: Any, apart: Any
) -> None:
    for painting in PAINTINGS:
        pipe = picture_harness().pipeline.pipe
        raw = pipe(
            painting["prompt"],
            num_inference_steps=painting["steps"],
            guidance_scale=painting.get("guidance", 7.5),
            negative_prompt=painting.get("negative_prompt"),
            generator=torch.Generator("cpu").manual_seed(painting["seed"]),
        ).images[0]

        [image] = await alone(picture_harness, painted, [painting])

        assert apart(image, raw) == 0


async def test_the_same_request_again_is_the_same_picture_bit_by_bit(
    picture_harness: Any, painted: Any, apart: Any
) -> None:
    first, second = await alone(picture_harness, painted, [PAINTINGS[2]] * 2)

    assert apart(first, second) == 0


async def test_different_steps_and_guidance_share_their_forwards(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness()
    generations = [await busy.submit(**painting) for painting in PAINTINGS]
    busy.start()

    await painted(*generations)

    # 3, 4, 5 and 7 steps; each takes two rows for its guidance.
    assert busy.forwards == [8, 8, 8, 6, 4, 2, 2]


async def test_one_without_guidance_shares_too_and_takes_one_row(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness()
    generations = [await busy.submit(seed=seed, guidance=guidance) for seed, guidance in ((1, 1.0), (2, 5.0))]
    busy.start()

    await painted(*generations)

    assert busy.forwards == [3, 3, 3, 3]


async def test_different_sizes_do_not_share(picture_harness: Any, painted: Any, apart: Any) -> None:
    busy = picture_harness()
    sizes = ["32x32", "16x32", "32x16"]
    generations = [await busy.submit(size=size) for size in sizes]
    busy.start()

    images = [one.image for one in await painted(*generations)]

    assert busy.forwards == [2] * 12
    assert [image.size for image in images] == [(32, 32), (16, 32), (32, 16)]


async def test_n_pictures_are_those_of_the_next_seeds(picture_harness: Any, painted: Any, apart: Any) -> None:
    seeds = [7, 8, 9]
    expected = await alone(picture_harness, painted, [{"seed": seed} for seed in seeds])
    busy = picture_harness()
    generation = await busy.submit(seed=7, n=3)
    busy.start()

    ends = await painted(generation)

    assert [end.seed for end in ends] == seeds
    assert [end.picture for end in ends] == [0, 1, 2]
    assert max(apart(end.image, image) for end, image in zip(ends, expected, strict=True)) <= TOLERANCE
    assert busy.forwards == [6, 6, 6, 6]


async def test_without_a_seed_every_picture_is_another_and_says_its_seed(
    picture_harness: Any, painted: Any, apart: Any
) -> None:
    busy = picture_harness()
    busy.start()

    [one], [other] = [await painted(await busy.submit(seed=None)) for _ in range(2)]
    [again] = await painted(await busy.submit(seed=one.seed))

    assert one.seed != other.seed
    assert apart(one.image, other.image) > TOLERANCE
    assert apart(one.image, again.image) <= TOLERANCE


async def test_the_seeds_go_round_at_the_end_of_the_numbers(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness()
    busy.start()

    ends = await painted(await busy.submit(seed=2**63 - 1, n=2))

    assert [end.seed for end in ends] == [2**63 - 1, 0]


async def test_closing_frees_the_slot_within_a_step(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness(slots=1)
    busy.start()
    with held(busy.core, after=3):
        leaves = await busy.submit(steps=100, guidance=1.0)
        await begun(leaves, 3)
        waits = await busy.submit(steps=2)
        leaves.close()
    await painted(waits)

    assert busy.forwards.count(1) <= 4, "steps computed for nobody"
    await busy.until_idle()


async def test_fifty_that_leave_leave_nothing_behind(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness()
    busy.start()
    chance = random.Random(1)
    runs: list[weakref.ref[Any]] = []
    run = busy.pipeline.run

    def running(*arguments: Any) -> Any:
        runs.append(weakref.ref(getcurrent()))
        return run(*arguments)

    busy.pipeline.run = running
    schedulers = await scheduler_count(busy)
    for number in range(50):
        generation = await busy.submit(seed=number, steps=100, size=chance.choice(["32x32", "16x16"]))
        if chance.random() < 0.8:
            await begun(generation, chance.randint(1, 4))
        generation.close()
    await painted(await busy.submit())

    await busy.until_idle()
    assert len(runs) > 25
    gc.collect()
    await eventually(lambda: not any(run() is not None for run in runs))
    assert await scheduler_count(busy) == schedulers, "a run keeps a scheduler of its own"


async def scheduler_count(harness: Any) -> int:
    gc.collect()
    kind = type(harness.pipeline.pipe.scheduler)
    return sum(type(thing) is kind for thing in gc.get_objects())


async def test_what_is_closed_while_it_waits_is_never_begun(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness(slots=1)
    busy.start()
    with held(busy.core):
        running = await busy.submit()
        waiting = [await busy.submit(n=2) for _ in range(5)]
        for generation in waiting:
            generation.close()
    await painted(running)

    await busy.until_idle()
    assert busy.forwards == [2] * 4


async def test_a_full_queue_refuses_all_pictures_of_a_request_or_none(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness(slots=1, max_waiting=2)
    busy.start()
    with held(busy.core):
        running = await busy.submit()
        await eventually(lambda: busy.admission.running == 1)
        with pytest.raises(ProblemError) as refused:
            await busy.submit(n=3)
        fits = await busy.submit(n=2)
    await painted(running, fits)

    assert refused.value.kind is problems.OVERLOADED
    assert int(refused.value.headers["Retry-After"]) >= 1
    await busy.until_idle()
    assert len(busy.forwards) == 12, "none of the refused ones was begun"


async def test_more_pictures_than_there_will_ever_be_places_for_are_the_clients_mistake(picture_harness: Any) -> None:
    busy = picture_harness(slots=1, max_waiting=2)

    with pytest.raises(ProblemError) as refused:
        await busy.submit(n=4)

    assert refused.value.kind is problems.INVALID_FIELD
    assert "n: " in str(refused.value)
    assert busy.idle


async def test_one_whose_time_is_over_is_told_so_in_the_middle(
    picture_harness: Any, painted: Any, problem_of: Any
) -> None:
    busy = picture_harness()
    busy.start()
    with held(busy.core, after=3):
        late = await busy.submit(steps=150)
        stays = await busy.submit(seed=2, steps=6)
        await begun(late, 2)
        for task in busy.snapshot.tasks:
            if task.parameters.steps == 150:
                task.deadline = 0.0

    assert (await problem_of(late)).kind is problems.TOO_LATE
    [end] = await painted(stays)
    assert end.steps == 6
    await busy.until_idle()


async def test_what_cannot_be_done_in_time_is_refused_at_once(picture_harness: Any, painted: Any) -> None:
    busy = picture_harness(slots=1)
    busy.start()
    busy.admission.service_time.learn(1_000)
    with held(busy.core):
        running = await busy.submit()

        with pytest.raises(ProblemError, match="the request gives it") as refused:
            await busy.submit(seconds=5)

    assert refused.value.kind is problems.OVERLOADED
    await painted(running)


async def test_small_pictures_are_not_expected_to_take_as_long_as_large_ones(
    picture_harness: Any, painted: Any
) -> None:
    busy = picture_harness(slots=1)
    busy.start()
    busy.admission.service_time.learn(1_000)  # for a step of a megapixel

    pictures = await painted(await busy.submit(size="8x8", steps=1, n=3, seconds=5))

    assert len(pictures) == 3


async def test_a_closed_engine_tells_everyone(picture_harness: Any, problem_of: Any) -> None:
    busy = picture_harness(slots=2)
    busy.start()
    with held(busy.core, after=2):
        generations = [await busy.submit(steps=100, n=2) for _ in range(3)]
        await begun(generations[0])
        busy.core.close()

    for generation in generations:
        problem = await problem_of(generation)
        assert problem.kind is problems.UNAVAILABLE
        assert "shutting down" in str(problem)
    with pytest.raises(ProblemError, match="shutting down"):
        await busy.submit()
    await eventually(lambda: not busy.scheduler.alive)


async def test_events_come_while_it_is_made(picture_harness: Any) -> None:
    busy = picture_harness()
    generations = [await busy.submit(seed=seed, steps=3 + seed) for seed in range(3)]
    busy.start()

    for seed, generation in enumerate(generations):
        async with asyncio.timeout(60):
            started, *steps, end = [event async for event in generation]
        assert isinstance(started, Started)
        assert steps == [Progress(0, step, 3 + seed) for step in range(1, 4 + seed)]
        assert end.steps == 3 + seed
        assert end.understood is None


def test_a_step_waits_for_its_own_device_and_no_other(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr(type(pipeline), "device", torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
    batch = PictureBatch(pipeline, 1)
    batch.join(PictureRow(pipeline.parameters("a", seed=0, steps=1), lambda _step, _latents: None))
    try:
        batch.step()
    finally:
        batch.close()
    assert waited == [torch.device("cuda:1")]


def test_a_picture_that_is_removed_leaves_gradients_as_they_were(pipeline: Any) -> None:
    batch = PictureBatch(pipeline, 1)
    row = PictureRow(pipeline.parameters("a cat", seed=1), lambda _step, _latents: None)
    try:
        batch.join(row)
        batch.step()
        assert torch.is_grad_enabled()
        batch.remove(row)
        assert torch.is_grad_enabled()
    finally:
        batch.close()
