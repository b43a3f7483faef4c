"""Running out of memory and failing: the pictures look the same, no step is lost, and only who is to blame is told."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from greenlet import greenlet

import predictor.engine.scheduler
from contract import problems
from predictor.engine.events import Preview, Progress
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

PAINTINGS: list[dict[str, Any]] = [
    {"prompt": "a cat", "seed": 1},
    {"prompt": "red apple", "seed": 2, "steps": 3},
    {"prompt": "moon", "seed": 3, "guidance": 2.0},
]
TOLERANCE = 1


@pytest.fixture(autouse=True)
def little_garbage() -> Iterator[None]:
    """Collecting it takes long with all that is imported, and is done whenever memory runs out."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
async def expected(picture_harness: Any, painted: Any) -> list[Any]:
    """The pictures of PAINTINGS when nothing goes wrong."""
    calm = picture_harness()
    generations = [await calm.submit(**painting) for painting in PAINTINGS]
    calm.start()
    return [one.image for one in await painted(*generations)]


def out_of_memory() -> Exception:
    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return error


def decoding(harness: Any, fail: Callable[[Any], None]) -> None:
    """Have something go wrong in the decoder, which is given its latents."""
    vae = harness.pipeline.pipe.vae
    decode = vae.decode

    def failing(latents: Any, *arguments: Any, **more: Any) -> Any:
        fail(latents)
        return decode(latents, *arguments, **more)

    vae.decode = failing


async def test_at_any_forward_of_a_run_the_pictures_are_the_same(
    picture_harness: Any, painted: Any, apart: Any, expected: Any
) -> None:
    for failing in range(4):
        disturbed = picture_harness()
        calls: list[int] = []

        def fail(rows: int, calls: list[int] = calls, failing: int = failing) -> None:
            calls.append(rows)
            if len(calls) == failing + 1:
                raise out_of_memory()

        disturbed.before_forward.append(fail)
        generations = [await disturbed.submit(**painting) for painting in PAINTINGS]
        disturbed.start()

        images = [one.image for one in await painted(*generations)]

        assert max(map(apart, images, expected)) <= TOLERANCE, f"after running out of memory in forward {failing}"
        assert sum(disturbed.forwards) == (4 + 3 + 4) * 2, "no step was made twice"
        assert disturbed.snapshot.usable_slots < 4
        await disturbed.until_idle()


@pytest.mark.parametrize("holds", [1, 2])
async def test_a_device_that_holds_fewer_makes_the_same_pictures(
    picture_harness: Any, painted: Any, apart: Any, expected: Any, holds: int
) -> None:
    small = picture_harness()

    def fail(rows: int) -> None:
        if rows > 2 * holds:
            raise out_of_memory()

    small.before_forward.append(fail)
    generations = [await small.submit(**painting) for painting in PAINTINGS]
    small.start()

    images = [one.image for one in await painted(*generations)]

    assert max(map(apart, images, expected)) <= TOLERANCE
    assert small.snapshot.usable_slots == holds
    assert not small.pipeline.pipe.vae.use_tiling, "there was another way"
    await small.until_idle()


async def test_a_step_is_told_once_though_it_is_done_twice_and_so_is_a_preview(picture_harness: Any) -> None:
    disturbed = picture_harness()
    disturbed.start()
    [event async for event in await disturbed.submit()]  # previews are learned from it
    processor, before = disturbed.pipeline.pipe.image_processor, len(disturbed.forwards)
    postprocess, failures = processor.postprocess, [torch.AcceleratorError("CUDA error: unspecified launch failure")]

    def fail_once(*arguments: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return postprocess(*arguments, **more)

    processor.postprocess = fail_once
    generation = await disturbed.submit(n=2, previews=3)

    events = [event async for event in generation]

    assert sum(disturbed.forwards[before:]) > 2 * 4 * 2, "some steps were done twice"
    for picture in (0, 1):
        mine = [event for event in events if getattr(event, "picture", None) == picture]
        assert [event.step for event in mine if isinstance(event, Progress)] == [1, 2, 3, 4]
        assert [event.step for event in mine if isinstance(event, Preview)] == [1, 2, 3]


async def test_when_it_is_the_decoder_the_pictures_are_the_same(
    picture_harness: Any, painted: Any, apart: Any, expected: Any
) -> None:
    disturbed = picture_harness()
    failures = [out_of_memory(), out_of_memory()]

    def fail(_latents: Any) -> None:
        if failures:
            raise failures.pop()

    decoding(disturbed, fail)
    generations = [await disturbed.submit(**painting) for painting in PAINTINGS]
    disturbed.start()

    images = [one.image for one in await painted(*generations)]

    assert not failures
    assert max(map(apart, images, expected)) <= TOLERANCE
    assert sum(disturbed.forwards) == (4 + 3 + 4) * 2, "no step was made twice"
    assert disturbed.snapshot.usable_slots == disturbed.snapshot.slots == 4
    await disturbed.until_idle()


async def test_what_cannot_be_decoded_at_once_is_decoded_in_tiles_and_nobody_does_a_step_twice(
    picture_harness: Any, painted: Any
) -> None:
    crowded = picture_harness()
    vae = crowded.pipeline.pipe.vae

    def fail(latents: Any) -> None:
        if not vae.use_tiling and latents.shape[-1] == 16:
            raise out_of_memory()

    decoding(crowded, fail)
    generations = [await crowded.submit(seed=seed, steps=20) for seed in range(4)]
    generations += [await crowded.submit(seed=seed, size="16x16", steps=20) for seed in range(4)]
    crowded.start()

    pictures = await painted(*generations)

    assert [end.image.size for end in pictures] == [(32, 32)] * 4 + [(16, 16)] * 4
    assert sum(crowded.forwards) == 8 * 20 * 2
    assert crowded.snapshot.usable_slots == crowded.snapshot.slots == 4
    assert not crowded.scheduler.strained
    assert not vae.use_tiling, "others are decoded as they would be alone"
    await crowded.until_idle()


async def test_what_cannot_be_decoded_beside_others_is_decoded_while_they_wait(
    picture_harness: Any, painted: Any, apart: Any, expected: Any
) -> None:
    crowded = picture_harness()
    tried: list[int] = []

    def fail(_latents: Any) -> None:
        tried.append(len(crowded.core.batch))
        if tried[-1] > 1:
            raise out_of_memory()

    decoding(crowded, fail)
    generations = [await crowded.submit(**painting) for painting in PAINTINGS]
    neighbour = await crowded.submit(steps=9, seed=4)
    crowded.start()

    images = [one.image for one in await painted(*generations)]

    assert max(map(apart, images, expected)) <= TOLERANCE
    assert len(await painted(neighbour)) == 1
    assert tried.count(1) == 4
    assert sum(crowded.forwards) == (4 + 3 + 4 + 9) * 2
    assert crowded.snapshot.usable_slots == crowded.snapshot.slots == 4
    await crowded.until_idle()


async def test_one_that_is_out_of_memory_before_its_first_step_is_begun_again_alone(
    picture_harness: Any, painted: Any
) -> None:
    crowded = picture_harness()
    encode = crowded.pipeline.pipe.encode_prompt

    def encoding(prompt: Any, *arguments: Any, **more: Any) -> Any:
        if "long" in prompt and len(crowded.core.batch) > 1:
            raise out_of_memory()
        return encode(prompt, *arguments, **more)

    crowded.pipeline.pipe.encode_prompt = encoding
    generations = [await crowded.submit(steps=9), await crowded.submit("long", seed=2, steps=9)]
    crowded.start()

    assert len(await painted(*generations)) == 2
    assert sum(crowded.forwards) == 2 * 9 * 2
    await crowded.until_idle()


async def test_closing_ends_those_that_wait_for_memory(picture_harness: Any, problem_of: Any) -> None:
    crowded = picture_harness(slots=3)
    closing: list[None] = []

    def fail(_latents: Any) -> None:
        if len(crowded.core.batch) == 1:
            closing.append(None)
            crowded.core.close()
        raise out_of_memory()

    decoding(crowded, fail)
    generations = [await crowded.submit(seed=seed) for seed in range(3)]
    crowded.start()

    kinds = {(await problem_of(generation)).kind for generation in generations}
    assert closing
    assert kinds <= {problems.UNAVAILABLE, problems.OUT_OF_MEMORY}
    await eventually(lambda: not crowded.scheduler.alive)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, greenlet) and each and each.parent is not None]


async def test_one_that_does_not_fit_in_any_way_is_told_so_with_numbers_and_the_others_go_on(
    picture_harness: Any, painted: Any, problem_of: Any
) -> None:
    crowded = picture_harness()

    tiled: list[bool] = []

    def fail(latents: Any) -> None:
        if latents.shape[2:] == (16, 16):
            tiled.append(crowded.pipeline.pipe.vae.use_tiling)
            raise out_of_memory()

    decoding(crowded, fail)
    big = await crowded.submit(size="32x32", steps=3)
    small = [await crowded.submit(size="16x16", seed=seed) for seed in (1, 2)]
    crowded.start()

    problem = await problem_of(big)
    assert problem.kind is problems.OUT_OF_MEMORY
    assert problem.document["status"] == 413
    assert "3 of 3 steps at 32x32" in str(problem)
    assert [end.image.size for end in await painted(*small)] == [(16, 16)] * 2
    await crowded.until_idle()
    assert True in tiled, "it was tried"
    assert crowded.snapshot.slots == crowded.snapshot.usable_slots == crowded.admission.slots == 4


async def test_only_the_one_that_fails_is_told_so(
    picture_harness: Any, painted: Any, apart: Any, problem_of: Any, expected: Any
) -> None:
    poisoned = picture_harness()
    encode = poisoned.pipeline.pipe.encode_prompt

    def encoding(prompt: Any, *arguments: Any, **more: Any) -> Any:
        embeddings = encode(prompt, *arguments, **more)
        return [part * torch.inf if "poison" in prompt else part for part in embeddings]

    poisoned.pipeline.pipe.encode_prompt = encoding

    def inspect(_sample: Any, _step: Any, encoder_hidden_states: Any, **_more: Any) -> None:
        if not encoder_hidden_states.isfinite().all():
            raise RuntimeError("shapes cannot be multiplied")

    poisoned.inspect_forward.append(inspect)
    generations = [await poisoned.submit(**painting) for painting in PAINTINGS[:2]]
    bad = await poisoned.submit("poison")
    generations.append(await poisoned.submit(**PAINTINGS[2]))
    poisoned.start()

    problem = await problem_of(bad)
    images = [one.image for one in await painted(*generations)]

    assert problem.kind is problems.INTERNAL
    assert max(map(apart, images, expected)) <= TOLERANCE
    await poisoned.until_idle()
    assert poisoned.snapshot.usable_slots == poisoned.snapshot.slots == 4
    assert poisoned.scheduler.alive


async def test_what_fails_before_the_first_step_is_told_so_too(
    picture_harness: Any, painted: Any, problem_of: Any
) -> None:
    poisoned = picture_harness()
    encode = poisoned.pipeline.pipe.encode_prompt

    def encoding(prompt: Any, *arguments: Any, **more: Any) -> Any:
        if "poison" in prompt:
            raise ValueError("cannot be read")
        return encode(prompt, *arguments, **more)

    poisoned.pipeline.pipe.encode_prompt = encoding
    good, bad = await poisoned.submit(), await poisoned.submit("poison")
    poisoned.start()

    assert (await problem_of(bad)).kind is problems.INTERNAL
    assert len(await painted(good)) == 1
    await poisoned.until_idle()


async def test_one_failed_picture_of_a_request_ends_it_and_the_others_are_not_made(
    picture_harness: Any, problem_of: Any
) -> None:
    poisoned = picture_harness(slots=1)

    def fail(latents: Any) -> None:
        raise RuntimeError("cannot be decoded")

    decoding(poisoned, fail)
    generation = await poisoned.submit(n=2)
    poisoned.start()

    assert (await problem_of(generation)).kind is problems.INTERNAL
    generation.close()
    await poisoned.until_idle()


async def test_a_broken_device_ends_the_engine(
    picture_harness: Any, problem_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor.engine.scheduler, "FAILURES", 2)
    broken = picture_harness()

    def fail(_rows: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    broken.before_forward.append(fail)
    generations = [await broken.submit(seed=seed) for seed in range(3)]
    broken.start()

    kinds = [(await problem_of(generation)).kind for generation in generations]
    assert kinds == [problems.INTERNAL, problems.INTERNAL, problems.UNAVAILABLE]
    await eventually(lambda: not broken.scheduler.alive)


async def test_a_denoiser_that_was_sent_off_the_device_is_fetched_for_the_forward(
    picture_harness: Any, painted: Any, apart: Any, expected: Any
) -> None:
    """accelerate moves a model only when it is called, and a picture that is decoded sends the denoiser away."""
    offloaded = picture_harness()
    fetched: list[int] = []

    class Hook:
        def pre_forward(self, module: Any, *arguments: Any, **more: Any) -> Any:
            assert module is offloaded.pipeline.denoiser
            fetched.append(len(offloaded.forwards))
            return arguments, more

    offloaded.pipeline.denoiser._hf_hook = Hook()
    generations = [await offloaded.submit(**painting) for painting in PAINTINGS]
    offloaded.start()

    images = [one.image for one in await painted(*generations)]

    assert max(map(apart, images, expected)) <= TOLERANCE
    assert fetched == list(range(len(offloaded.forwards)))


@pytest.mark.parametrize(
    ("accelerate", "order", "room"),
    [(True, "unet->vae", 1), (True, "unet->vae", -1), (False, "unet->vae", 1), (True, None, 1)],
)
def test_a_gpu_is_offloaded_if_it_can_be_and_the_host_has_room_for_the_models(
    picture_harness: Any, monkeypatch: pytest.MonkeyPatch, accelerate: bool, order: str | None, room: int
) -> None:
    pipeline = picture_harness().pipeline
    offloads: list[torch.device] = []
    monkeypatch.setattr(type(pipeline), "device", torch.device("cuda"))
    monkeypatch.setattr("predictor.pictures.pipeline.find_spec", lambda _name: accelerate or None)
    monkeypatch.setattr("predictor.pictures.pipeline.free_host_memory", lambda: pipeline.weight_bytes + room)
    monkeypatch.setattr(type(pipeline.pipe), "model_cpu_offload_seq", order)
    monkeypatch.setattr(pipeline.pipe, "enable_model_cpu_offload", lambda device: offloads.append(device))
    can = accelerate and order is not None and room > 0

    assert [pipeline.reduce_memory() for _ in range(2)] == [can, False]
    assert offloads == [torch.device("cuda")] * can
