"""Pipelines of newer families load, make sizes of their own, and paint the same picture alone and beside another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.problems import ProblemError
from predictor.errors import ModelError
from predictor.loading.model_source import check_source
from tests.predictor.pictures import transformer_pipelines as families

pytestmark = pytest.mark.slow

LONGER = "a red cat, an apple, a cat, a red apple, a cat, an apple, a cat"
SIZES = {
    families.z_image: "32x32",
    families.qwen_image: "32x32",
    families.krea_2: "32x32",
    families.flux_2_klein: "32x32",
    families.lumina_2: None,
    families.sana_sprint: None,
    families.kandinsky_5: "64x64",
}
"""Default sizes that a deployment sets, where the pipeline's own are large."""

everyone = pytest.mark.parametrize("make", SIZES, ids=lambda make: make.__name__)


@pytest.fixture(scope="module")
def of() -> Callable[[Callable[[], Any]], Any]:
    """The pipeline of a family; each is made once."""
    from predictor.pictures.model_defaults import NO_DEFAULTS
    from predictor.pictures.pipeline import Pipeline

    made: dict[Callable[[], Any], Any] = {}

    def get(make: Callable[[], Any]) -> Any:
        if make not in made:
            pipe = make()
            pipe.set_progress_bar_config(disable=True)
            made[make] = Pipeline(pipe, NO_DEFAULTS, SIZES[make])
        return made[make]

    return get


@everyone
def test_a_family_loads_from_its_folder(folder_of: Any, make: Any) -> None:
    """Some keep parts in float32, for which diffusers wants accelerate."""
    from predictor.pictures.pipeline_loading import load_pipeline

    loaded = load_pipeline(str(folder_of(make)), "cpu", "auto", lambda _phase: None)

    expected = make()
    assert type(loaded.pipe) is type(expected)
    stored = dict(loaded.denoiser.state_dict())
    for name, tensor in expected.transformer.state_dict().items():
        assert torch.equal(stored[name], tensor), name


def test_a_shorter_type_beside_parts_in_float32_needs_accelerate(
    folder_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from predictor.pictures import pipeline_loading

    monkeypatch.setattr(pipeline_loading, "find_spec", lambda _name: None)

    with pytest.raises(ModelError, match=r"its transformer keeps parts in float32, .*pip install 'shangcai"):
        pipeline_loading.load_pipeline(str(folder_of(families.krea_2)), "cpu", "bfloat16", lambda _phase: None)


@everyone
@pytest.mark.parametrize("second", ["a cat", LONGER], ids=["same-prompt", "longer-prompt"])
async def test_a_picture_is_the_same_alone_and_beside_another(
    of: Any, picture_harness: Any, painted: Any, apart: Any, make: Any, second: str
) -> None:
    pipeline = of(make)
    paintings = [{"prompt": "a cat", "seed": 1, "steps": 2}, {"prompt": second, "seed": 2, "steps": 2}]
    single, busy = picture_harness(1, of=pipeline), picture_harness(2, of=pipeline)
    single.start()
    expected = [one.image for painting in paintings for one in await painted(await single.submit(**painting))]
    generations = [await busy.submit(**painting) for painting in paintings]
    busy.start()

    images = [one.image for one in await painted(*generations)]

    assert max(map(apart, images, expected)) <= 1
    assert apart(*expected) > 20, "they are two pictures"
    if make is families.kandinsky_5 and second == LONGER:  # it has no mask for what would be added to a text
        assert [len(busy.forwards), len(single.forwards)] == [6, 8], "without a prompt both are of one length"
    else:
        assert 2 * len(busy.forwards) == len(single.forwards)


def test_pipelines_that_are_compared_here_are_not_compared_at_each_start(of: Any) -> None:
    from predictor.pictures.batch_check import COMPARED

    elsewhere = {"StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"}
    assert {of(make).name for make in SIZES} | elsewhere == COMPARED, "test_pipelines.py compares four"


@everyone
def test_it_makes_pictures_of_its_own_sizes(of: Any, make: Any) -> None:
    pipeline = of(make)
    width, height = pipeline.sizes.default

    picture = pipeline.run(pipeline.parameters("a", seed=0, steps=1), lambda _step, _latents: None)

    assert picture.size == (width, height)
    largest = pipeline.sizes.largest
    wide = pipeline.parameters("a", seed=0, steps=1, size=f"{largest[0]}x{largest[1]}")
    assert pipeline.run(wide, lambda _step, _latents: None).size == largest > (width, height)


@pytest.mark.parametrize(
    ("make", "size"),
    [(families.z_image, (1024, 1024)), (families.qwen_image, (512, 512)), (families.krea_2, (1024, 1024))],
)
def test_without_a_sample_size_the_default_is_the_pipelines_own(of: Any, make: Any, size: tuple[int, int]) -> None:
    from predictor.pictures.picture_sizes import sizes_of

    pipe = of(make).pipe

    sizes = sizes_of(pipe, pipe.transformer)

    assert sizes.default == size
    assert sizes.most_pixels == 2 * size[0] * size[1]
    assert sizes.read("1024x512") == (1024, 512)


def test_sizes_that_a_pipeline_would_change_are_refused_with_those_that_it_makes(of: Any) -> None:
    with pytest.raises(ProblemError, match="size: must be one of 64x64, 96x64"):
        of(families.kandinsky_5).parameters("a", seed=0, size="64x96")


async def test_guidance_by_a_second_forward_is_on_as_its_makers_have_it(of: Any, picture_harness: Any) -> None:
    """QwenImagePipeline has a scale of 4 and makes nothing of it without a negative prompt."""
    pipeline = of(families.qwen_image)

    assert pipeline.parameters("a", seed=0).negative_prompt == " "
    assert pipeline.parameters("a", seed=0, guidance=1).negative_prompt is None
    with pytest.raises(
        ProblemError, match="negative_prompt: QwenImagePipeline takes this with a guidance of more than 1"
    ):
        pipeline.parameters("a", seed=0, guidance=1, negative_prompt="a dog")
    forwards = picture_harness(1, of=pipeline)
    forwards.start()
    for guidance, calls in ((None, 4), (3.0, 4), (1.0, 2)):
        before = len(forwards.forwards)
        await (await forwards.submit(prompt="a", seed=0, steps=2, guidance=guidance)).pictures()
        assert len(forwards.forwards) - before == calls


@pytest.mark.parametrize("make", [families.z_image, families.qwen_image], ids=lambda make: make.__name__)
async def test_it_loads_from_a_folder_is_measured_and_answers(make: Any, tmp_path: Path, load: Any, serve: Any) -> None:
    """The tiny Z-Image has no positions for as many words as it is measured with first."""
    make().save_pretrained(tmp_path)

    assert check_source(str(tmp_path)) == "image"
    with pytest.raises(ModelError, match=r"cannot load .*: --size: width and height must be multiples of 8"):
        load(tmp_path, size="30x32")
    client = await serve(load(tmp_path, size="32x32", max_concurrency=2))
    body = {"model": "painter", "prompt": "a cat", "seed": 1, "steps": 3, "n": 2, "stream": True, "partial_images": 1}
    events = (await client.post("/openai/v1/images/generations", json=body)).text

    assert (
        events.count('"type": "image_generation.completed"') + events.count('"type":"image_generation.completed"') == 2
    )
    assert "image_generation.partial_image" in events
