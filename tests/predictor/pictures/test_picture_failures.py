"""One picture's own mishap: it is told what it did wrong, and its neighbours do not do a single step twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from contract import problems
from contract.problems import ProblemError
from predictor.engine.scheduler import FAILURES
from predictor.pictures.pipeline_loading import load_pipeline
from tests.support import pipelines

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lcm(folder_of: Any) -> Any:
    """Its scheduler makes at most 50 steps."""
    folder = folder_of(pipelines.stable_diffusion, "LCMScheduler")
    return load_pipeline(str(folder), "cpu", "auto", lambda _phase: None)


async def test_what_a_scheduler_refuses_costs_the_others_nothing_however_often_it_is_asked_for(
    picture_harness: Any, painted: Any, problem_of: Any, lcm: Any
) -> None:
    busy = picture_harness(of=lcm)
    with pytest.raises(ProblemError, match="at most 50"):
        await busy.submit(steps=60)
    busy.pipeline._most_steps = None  # as where it is not known beforehand
    neighbour = await busy.submit(steps=50, guidance=1.0)
    wrong = [await busy.submit(steps=60, seed=seed) for seed in range(5)]
    busy.start()

    assert {(await problem_of(each)).kind for each in wrong} == {problems.INTERNAL}
    assert len(await painted(neighbour)) == 1
    assert busy.forwards == [1] * 50
    await busy.until_idle()
    assert busy.scheduler.alive


def break_encoder(harness: Any) -> None:
    encode = harness.pipeline.pipe.encode_prompt

    def encoding(prompt: Any, *arguments: Any, **more: Any) -> Any:
        if "poison" in prompt:
            raise RuntimeError("secret address")
        return encode(prompt, *arguments, **more)

    harness.pipeline.pipe.encode_prompt = encoding


def break_scheduler(harness: Any) -> None:
    """That of the one with the most steps, in the middle."""
    kind = type(harness.pipeline.pipe.scheduler)

    def stepping(scheduler: Any, output: Any, timestep: Any, *arguments: Any, **more: Any) -> Any:
        if scheduler.num_inference_steps == 12 and timestep < 500:
            raise RuntimeError("secret address")
        return kind.step(scheduler, output, timestep, *arguments, **more)

    breaking: Any = type("Breaking", (kind,), {"step": stepping})
    harness.pipeline.pipe.scheduler = breaking.from_config(harness.pipeline.pipe.scheduler.config)


def break_decoder(harness: Any) -> None:
    vae = harness.pipeline.pipe.vae
    decode = vae.decode

    def decoding(latents: Any, *arguments: Any, **more: Any) -> Any:
        if latents.shape[-1] == 8:
            raise RuntimeError("secret address")
        return decode(latents, *arguments, **more)

    vae.decode = decoding


def break_end(harness: Any) -> None:
    processor = harness.pipeline.pipe.image_processor
    postprocess = processor.postprocess

    def postprocessing(image: Any, *arguments: Any, **more: Any) -> Any:
        if image.shape[-1] == 16:
            raise RuntimeError("secret address")
        return postprocess(image, *arguments, **more)

    processor.postprocess = postprocessing


def break_preview(harness: Any) -> None:
    def learning(_latents: Any, picture: Any) -> None:
        if picture.size == (16, 16):
            raise RuntimeError("secret address")

    harness.core.preview.learn = learning


@pytest.mark.parametrize("breaking", [break_encoder, break_scheduler, break_decoder, break_end, break_preview])
async def test_a_mistake_in_one_pictures_own_work_is_its_own(
    picture_harness: Any,
    painted: Any,
    problem_of: Any,
    caplog: pytest.LogCaptureFixture,
    breaking: Callable[[Any], None],
) -> None:
    busy = picture_harness()
    breaking(busy)
    bad = [await busy.submit("poison", size="16x16", steps=12) for _ in range(2)]
    good = [await busy.submit(seed=seed, steps=11) for seed in range(2)]
    busy.start()

    pictures = await painted(*good)
    found = [await problem_of(each) for each in bad]

    assert [problem.kind for problem in found] == [problems.INTERNAL] * 2
    assert "secret" not in str([problem.document for problem in found])
    assert "secret address" in caplog.text
    assert len(pictures) == 2
    assert caplog.text.count("by itself") == 2
    # Those of 16x16 have forwards of their own, 12 at most, all of four rows.
    assert 11 <= len(busy.forwards) <= 11 + 12, "not one step was made twice"
    await busy.until_idle()
    assert busy.scheduler.alive


async def test_a_device_that_fails_in_one_pictures_work_is_everybodys(
    picture_harness: Any, painted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What a kernel does wrong is told by whichever call comes after it."""
    busy = picture_harness()
    encode = busy.pipeline.pipe.encode_prompt
    failures = [torch.AcceleratorError("CUDA error: an illegal memory access was encountered")]

    def encoding(*arguments: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return encode(*arguments, **more)

    busy.pipeline.pipe.encode_prompt = encoding
    generations = [await busy.submit(seed=seed) for seed in range(3)]
    busy.start()

    assert len(await painted(*generations)) == 3
    assert "a step failed with 3 running" in caplog.text
    await busy.until_idle()


@pytest.mark.parametrize("place", [0, 6, 15])
async def test_a_bad_one_of_sixteen_is_found_while_the_others_keep_their_steps(
    picture_harness: Any, painted: Any, problem_of: Any, place: int
) -> None:
    full = picture_harness(slots=16)
    generations = [
        await full.submit("poison" if number == place else "moon", seed=number, steps=8, guidance=1.0)
        for number in range(16)
    ]
    poison = full.pipeline.pipe.encode_prompt("poison", "cpu", 1, False)[0]
    failed: list[int] = []

    def inspect(sample: Any, timestep: Any, encoder_hidden_states: Any, **_more: Any) -> None:
        bad = [torch.equal(row, poison[0]) for row in encoder_hidden_states]
        if any(bad) and timestep.expand(len(sample))[bad.index(True)] < 500:
            failed.append(len(sample))
            raise RuntimeError("shapes cannot be multiplied")

    full.inspect_forward.append(inspect)
    full.start()

    assert (await problem_of(generations.pop(place))).kind is problems.INTERNAL
    assert len(await painted(*generations)) == 15
    assert failed[0] == 16
    assert failed[-1] == 1, "it failed alone before it was told so"
    assert len(failed) <= 6
    assert full.forwards.index(15) - full.forwards.index(16) <= 4 + 4, (
        "four steps of all, and some of those that passed"
    )
    assert sum(full.forwards) == 15 * 8 + 4, "no step was made twice"
    await full.until_idle()


async def test_a_picture_that_fails_again_and_again_does_not_end_an_engine_that_works(
    picture_harness: Any, painted: Any, problem_of: Any
) -> None:
    poisoned = picture_harness(slots=1)

    def fail(_rows: int) -> None:
        if any("poison" in row.parameters.prompt for row in poisoned.core.batch.running):
            raise RuntimeError("secret address")

    poisoned.before_forward.append(fail)
    poisoned.start()
    for _ in range(2 * FAILURES):
        assert (await problem_of(await poisoned.submit("poison"))).kind is problems.INTERNAL
    assert poisoned.scheduler.alive
    assert len(await painted(await poisoned.submit())) == 1


async def test_whatever_takes_long_in_a_step_is_between_two_heartbeats(picture_harness: Any, painted: Any) -> None:
    """On a slow CPU each takes a minute: one step that begins and ends several pictures is not a stuck device."""
    slow = picture_harness()
    done: list[str] = []
    pipe, beat = slow.pipeline.pipe, slow.core.batch.heartbeat

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **more: Any) -> Any:
            done.append(name)
            return function(*arguments, **more)

        return noting

    pipe.encode_prompt = noted("begin", pipe.encode_prompt)
    pipe.vae.decode = noted("decode", pipe.vae.decode)
    slow.before_forward.append(lambda _rows: done.append("forward"))
    slow.core.batch.heartbeat = noted("beat", beat)
    generations = [await slow.submit(seed=seed, size=size) for seed, size in enumerate(["32x32", "32x32", "16x16"])]
    slow.start()

    assert len(await painted(*generations)) == 3
    assert (done.count("begin"), done.count("forward"), done.count("decode")) == (3, 8, 2)
    assert all("beat" in pair for pair in itertools.pairwise(done)), done
