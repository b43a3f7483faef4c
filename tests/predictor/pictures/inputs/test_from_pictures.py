"""Pictures that begin with another: they are what diffusers makes, in the same batch and of the same weights."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from contract import ProblemError
from predictor.engine.events import PictureFinished, Preview, Progress
from tests.support import pipelines

pytestmark = [
    pytest.mark.slow,
    # Euler's scheduler of diffusers 0.42 makes an array of a tensor in the way of numpy 1.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

FAMILIES = ["tiny_sd", "tiny_sdxl", "tiny_sd3", "tiny_flux"]
CASES = [(family, kind) for family in FAMILIES for kind in ("Img2Img", "Inpaint")]
CASES.remove(("tiny_sd3", "Inpaint"))  # takes latents of 16 channels, which all real models of it have


def drawn(size: tuple[int, int] = (32, 32)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((4, 4, size[0] - 8, size[1] - 8), fill="red")
    return image


def masked(size: tuple[int, int] = (32, 32)) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (size[0] // 2, 0, *size))
    return mask


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


IMAGE, MASK = encoded(drawn()), encoded(masked())


@pytest.fixture(scope="module")
def automatic() -> Any:
    """diffusers' own choice of a pipeline."""
    from predictor.imports.lean_imports import lean_imports, lean_picture_imports

    with lean_imports(), lean_picture_imports():
        from diffusers.pipelines import auto_pipeline

    return auto_pipeline


def loaded(folder: Path) -> Any:
    from predictor.pictures.pipeline_loading import load_pipeline

    return load_pipeline(str(folder), "cpu", "auto", lambda _phase: None)


@pytest.mark.parametrize(("folder", "kind"), CASES)
async def test_it_is_what_diffusers_makes_of_the_same_modules_bit_by_bit(
    request: pytest.FixtureRequest,
    automatic: Any,
    picture_harness: Any,
    painted: Any,
    apart: Any,
    folder: str,
    kind: str,
) -> None:
    import torch

    harness = picture_harness(of=loaded(request.getfixturevalue(folder)))
    pipe = harness.pipeline.pipe
    auto = automatic.AutoPipelineForImage2Image if kind == "Img2Img" else automatic.AutoPipelineForInpainting
    theirs = auto.from_pipe(pipe)
    theirs.set_progress_bar_config(disable=True)
    more = {} if kind == "Img2Img" else {"mask_image": masked()}
    sized = {} if folder in ("tiny_sd", "tiny_sdxl") and kind == "Img2Img" else {"width": 32, "height": 32}
    raw = theirs(
        "a cat",
        image=drawn(),
        strength=0.5,
        num_inference_steps=6,
        generator=torch.Generator("cpu").manual_seed(7),
        **more,
        **sized,
    ).images[0]
    fields = {"image": IMAGE, "strength": 0.5, "steps": 6, "seed": 7, "size": "32x32"}
    fields |= {} if kind == "Img2Img" else {"mask": MASK}

    generation = await harness.submit("a cat", **fields)
    harness.start()
    [made] = await painted(generation)

    assert apart(made.image, raw) == 0
    derived = harness.pipeline.from_source(masked=kind == "Inpaint")
    assert type(derived.pipe) is type(theirs)
    for name, module in harness.pipeline.models.items():
        assert getattr(derived.pipe, name) is module, name


def test_the_class_is_the_one_that_diffusers_chooses(automatic: Any) -> None:
    """For all pipelines that it knows and that take a strength: others begin with a picture in another way."""
    from predictor.pictures.inputs.derived import derived_class

    chosen = (
        ("Img2Img", automatic.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING),
        ("Inpaint", automatic.AUTO_INPAINT_PIPELINES_MAPPING),
    )
    compared = 0
    for kind, mapping in chosen:
        for name, own in automatic.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.items():
            found = derived_class(own, kind)  # type: ignore[arg-type]
            theirs = mapping.get(name)
            if found is not None and theirs is not None:
                assert found is theirs, own
                compared += 1
    assert compared >= 12


PAINTINGS: list[dict[str, Any]] = [
    {"prompt": "a cat", "seed": 1, "steps": 4},
    {"prompt": "red apple", "seed": 2, "steps": 8, "image": IMAGE, "strength": 0.5},
    {"prompt": "moon", "seed": 3, "steps": 4, "image": IMAGE, "mask": MASK, "strength": 1.0},
]


async def test_it_shares_forwards_with_others_and_looks_as_it_does_alone(
    picture_harness: Any, painted: Any, apart: Any
) -> None:
    single, busy = picture_harness(slots=1), picture_harness()
    single.start()
    expected = [one.image for each in PAINTINGS for one in await painted(await single.submit(**each))]
    generations = [await busy.submit(**each) for each in PAINTINGS]
    busy.start()

    images = [one.image for one in await painted(*generations)]

    assert max(map(apart, images, expected)) <= 1
    assert busy.forwards == [6] * 4, "all three have four steps, of two rows for the guidance"
    assert min(apart(expected[0], other) for other in expected[1:]) > 20


async def test_steps_and_previews_count_those_that_are_taken(picture_harness: Any) -> None:
    harness = picture_harness(slots=1)
    harness.start()
    await harness.core.warm_up()
    generation = await harness.submit(steps=8, image=IMAGE, strength=0.5, previews=1)

    events = [event async for event in generation]

    told = [(event.step, event.of) for event in events if isinstance(event, Progress)]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [event.step for event in events if isinstance(event, Preview)] == [2]
    assert [event.steps for event in events if isinstance(event, PictureFinished)] == [4]


async def test_the_less_strength_the_more_it_is_the_picture_it_began_with(picture_harness: Any, painted: Any) -> None:
    import numpy as np
    import torch

    harness = picture_harness(slots=1)
    harness.start()
    paintings = [{"image": IMAGE, "steps": 20, "strength": strength} for strength in (0.05, 1.0)]
    little, much = [one.image for each in paintings for one in await painted(await harness.submit(**each))]
    pipe = harness.pipeline.pipe
    with torch.no_grad():  # an untrained decoder gives another picture back than its encoder was given
        pixels = pipe.image_processor.preprocess(drawn())
        known = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mode(), return_dict=False)[0]
    [back] = pipe.image_processor.postprocess(known)

    def far(image: Any) -> float:
        return float(np.abs(np.asarray(image, float) - np.asarray(back, float)).mean())

    assert far(little) < far(much) - 5


@pytest.mark.parametrize(("fields", "named", "detail"), [
    ({"strength": 0.01}, "strength", "at least 0.25 with 4 steps"),
    ({"size": "20x32"}, "size", "multiples of 8"),
    ({"image": encoded(drawn())[:80]}, "image", "can be read"),
    ({"mask": encoded(masked((16, 16)))}, "mask", "32x32"),
])  # fmt: skip
async def test_what_is_wrong_is_refused_by_name(
    picture_harness: Any, fields: dict[str, Any], named: str, detail: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        await picture_harness().submit(**({"image": IMAGE, "steps": 4} | fields))
    [error] = caught.value.problem.errors or []
    assert (error.field, detail in error.detail) == (named, True), error


async def test_a_pipeline_without_such_a_class_says_so_before_anything_is_decoded(
    picture_harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of diffusers' pipelines for a unet none repaints latents of another depth than 4."""
    from predictor.pictures.model_defaults import NO_DEFAULTS
    from predictor.pictures.pipeline import Pipeline

    pipe = pipelines.stable_diffusion()
    pipe.unet.register_to_config(in_channels=6)
    monkeypatch.setattr("predictor.pictures.engine_core.read_source", lambda *_: pytest.fail("it was decoded"))
    harness = picture_harness(of=Pipeline(pipe, NO_DEFAULTS))
    with pytest.raises(ProblemError, match="mask: is not taken here: StableDiffusionPipeline repaints no part"):
        await harness.submit(image=IMAGE, mask=MASK)

    own = type("OtherPipeline", (type(pipe),), {"__module__": "elsewhere.pipeline"})
    pipe.__class__ = own
    with pytest.raises(ProblemError, match="image: is not taken here: OtherPipeline begins with no picture"):
        await picture_harness(of=Pipeline(pipe, NO_DEFAULTS)).submit(image=IMAGE)
