"""Pipelines of several families load and answer; what is no text-to-image pipeline is refused with one line."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from predictor.errors import ModelError
from predictor.loading.model_source import check_source

pytestmark = [
    pytest.mark.slow,
    # Euler's scheduler of diffusers 0.42 makes an array of a tensor in the way of numpy 1.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

ROUTE = "/openai/v1/images/generations"
BODY = {"model": "painter", "prompt": "a cat", "seed": 1}
FAMILIES = ["tiny_sd", "tiny_pndm", "tiny_sdxl", "tiny_sd3", "tiny_flux"]


def opened(item: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(item["b64_json"])))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, load_engine: Any) -> Iterator[Any]:
    """An engine with a pipeline of each family."""
    folder: Path = request.getfixturevalue(request.param)
    assert check_source(str(folder)) == "image"
    engine = load_engine(folder, max_concurrency=2)
    yield engine
    assert engine.alive, "the engine survived every test"
    engine.close()


async def test_a_family_loads_and_answers_with_a_picture(family: Any, serve: Any, apart: Any) -> None:
    client = await serve(family)

    answers = [await client.post(ROUTE, json=BODY | {"size": "32x32", "n": 2}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    first, again = (list(map(opened, answer.json()["data"])) for answer in answers)
    assert [image.size for image in first] == [(32, 32)] * 2
    assert max(map(apart, first, again)) <= 1, "the same seed, the same picture"
    assert apart(*first) > 20, "another seed, another picture"
    assert answers[0].json()["steps"] == 4
    assert answers[0].json()["understood"] is None


@pytest.mark.parametrize("folder", FAMILIES)
async def test_two_of_a_family_share_their_forwards_and_look_as_they_do_alone(
    request: pytest.FixtureRequest, picture_harness: Any, painted: Any, apart: Any, folder: str
) -> None:
    from predictor.pictures.pipeline_loading import load_pipeline

    pipeline = load_pipeline(str(request.getfixturevalue(folder)), "cpu", "auto", lambda _phase: None)
    paintings = [{"prompt": "a cat", "seed": 1, "size": "32x32"}, {"prompt": "moon", "seed": 2, "size": "32x32"}]
    single, busy = picture_harness(1, of=pipeline), picture_harness(of=pipeline)
    single.start()
    expected = [one.image for painting in paintings for one in await painted(await single.submit(**painting))]
    generations = [await busy.submit(**painting) for painting in paintings]
    busy.start()

    images = [one.image for one in await painted(*generations)]

    assert 2 * len(busy.forwards) == len(single.forwards)
    assert max(map(apart, images, expected)) <= 1


async def test_steps_are_told_as_they_were_asked_for_and_so_are_previews(family: Any, serve: Any) -> None:
    client = await serve(family)
    body = BODY | {"size": "32x32", "steps": 5, "stream": True, "progress": True, "partial_images": 2}

    text = (await client.post(ROUTE, json=body)).text

    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    steps = [event["step"] for event in events if event["type"] == "image_generation.progress"]
    assert steps == [1, 2, 3, 4, 5]
    assert [event["step"] for event in events if event["type"] == "image_generation.partial_image"] == [2, 3]
    assert events[-1]["type"] == "image_generation.completed"


async def test_what_a_pipeline_does_not_take_is_refused_by_name(family: Any, serve: Any) -> None:
    """Flux has the parameter, and makes nothing of it."""
    client = await serve(family)

    answer = await client.post(ROUTE, json=BODY | {"size": "32x32", "negative_prompt": "a dog"})

    if family.core.pipeline.name != "FluxPipeline":
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["negative_prompt"]
    assert "FluxPipeline does not take this" in answer.json()["detail"]


def test_a_distilled_model_takes_no_guidance(tiny_flux: Path, picture_harness: Any) -> None:
    from contract.problems import ProblemError
    from predictor.pictures.model_defaults import NO_DEFAULTS
    from predictor.pictures.pipeline import Pipeline
    from predictor.pictures.pipeline_loading import load_pipeline

    pipe = load_pipeline(str(tiny_flux), "cpu", "auto", lambda _phase: None).pipe
    pipe.transformer.register_to_config(guidance_embeds=False)

    with pytest.raises(ProblemError, match="guidance: FluxPipeline does not take this"):
        Pipeline(pipe, NO_DEFAULTS).parameters("a", seed=1, guidance=3.0)


SIZES = {
    "StableDiffusionPipeline": ("48x32", ["0x32", "20x32", "33x32", "72x32"], "at most 2048 pixels together"),
    "StableDiffusionXLPipeline": ("48x32", ["0x32", "20x32", "33x32", "72x32"], "at most 2048 pixels together"),
    "StableDiffusion3Pipeline": (
        "96x64",
        ["24x32", "32x8", "144x32"],
        "at most 128, with at most 8192 pixels together",
    ),
    "FluxPipeline": ("192x128", ["12x32", "264x128"], "at most 32768 pixels together"),
}
"""One and a half times as wide as the default size, and sizes that are refused."""


async def test_a_size_that_the_pipeline_would_refuse_or_round_is_refused_before(family: Any, serve: Any) -> None:
    client = await serve(family)
    size, wrong, why = SIZES[family.core.pipeline.name]

    for asked in wrong:
        answer = await client.post(ROUTE, json=BODY | {"size": asked})
        assert answer.status_code == 400, asked
        assert [error["field"] for error in answer.json()["errors"]] == ["size"]
    assert why in answer.json()["detail"]
    [picture] = (await client.post(ROUTE, json=BODY | {"size": size})).json()["data"]
    assert "{}x{}".format(*opened(picture).size) == size


# What is refused at load


@pytest.fixture
def broken(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline to break."""
    return Path(shutil.copytree(tiny_sd, tmp_path / "broken"))


def refused(load: Callable[..., Any], folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load(folder)
    line = str(error.value)
    assert "\n" not in line
    assert str(folder) in line
    return line


def test_a_missing_tensor_is_not_made_up(load: Any, broken: Path) -> None:
    from safetensors.torch import load_file, save_file

    for part, name in (("unet", "conv_in.weight"), ("vae", "decoder.conv_out.bias"), ("text_encoder", None)):
        [file] = (broken / part).glob("*.safetensors")
        whole = load_file(file)
        name = name or next(each for each in sorted(whole) if "fc1" in each)
        save_file({key: value for key, value in whole.items() if key != name}, file, metadata={"format": "pt"})

        line = refused(load, broken)

        assert f"1 tensors of its {part} are missing" in line
        assert name.removeprefix("text_model.") in line
        save_file(whole, file, metadata={"format": "pt"})
    load(broken)


def test_a_tensor_of_the_wrong_shape_is_refused(load: Any, broken: Path) -> None:
    from safetensors.torch import load_file, save_file

    for part in ("unet", "text_encoder"):
        [file] = (broken / part).glob("*.safetensors")
        whole = load_file(file)
        cut = {key: value[:1].clone() if value.dim() else value for key, value in whole.items()}
        save_file(cut, file, metadata={"format": "pt"})
        refused(load, broken)
        save_file(whole, file, metadata={"format": "pt"})


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_weights_are_not_loaded(load: Any, broken: Path, part: str) -> None:
    import torch
    from safetensors.torch import load_file

    [file] = (broken / part).glob("*.safetensors")
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(load_file(file), broken / part / name)
    file.unlink()

    assert check_source(str(broken)) == "image"
    refused(load, broken)


@pytest.mark.parametrize(
    ("part", "method", "why"),
    [
        ("unet", "torchao", "torchao"),
        ("unet", "of tomorrow", "which is not read here"),
        ("text_encoder", "gptq", "optimum"),
        ("text_encoder", "modelopt", "which is not read here"),
    ],
)
def test_a_quantized_part_is_refused_before_any_weight_is_read(
    load: Any, broken: Path, part: str, method: str, why: str
) -> None:
    for file in broken.glob("*/*.safetensors"):
        file.write_bytes(b"never read")
    quantized = {"quant_method": method, "bits": 4, "quant_type": "Int8WeightOnlyConfig"}
    file = broken / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": quantized}))

    with pytest.raises(ModelError) as raised:
        load(broken)

    line = str(raised.value)
    assert line.startswith(f"cannot load {broken}: the weights of its {part} are quantized by {method}")
    assert why in line
    assert "\n" not in line


def test_pictures_are_not_quantized(load: Any, tiny_sd: Path) -> None:
    with pytest.raises(ModelError, match="--quantize int8 is for texts"):
        load(tiny_sd, quantize="int8")


def test_weights_that_are_no_safetensors_at_all_are_seen_before_anything_is_imported(broken: Path) -> None:
    for file in broken.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".bin"))

    with pytest.raises(ModelError, match=r"holds no \*\.safetensors"):
        check_source(str(broken))


def test_cut_weights_are_refused(load: Any, broken: Path) -> None:
    [file] = (broken / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])

    refused(load, broken)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("StableDiffusionImg2ImgPipeline", "makes no pictures from text"),
        ("StableDiffusionUpscalePipeline", ""),
        ("NoSuchPipeline", ""),
    ],
)
def test_another_kind_of_pipeline_is_refused(load: Any, broken: Path, kind: str, why: str) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))

    assert why in refused(load, broken)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("WanPipeline", "makes videos, not pictures"),
        ("AnimateDiffPipeline", "makes videos, not pictures"),
        ("StableDiffusionXLImg2ImgPipeline", "makes no pictures from text"),
        ("FluxInpaintPipeline", "makes no pictures from text"),
        ("FluxControlPipeline", "makes no pictures from text"),
        ("StableDiffusionXLControlNetPipeline", "makes no pictures from text"),
        ("QwenImageEditPipeline", "makes no pictures from text"),
        ("PixArtSigmaPipeline", "cannot be watched or stopped between two steps"),
        ("StableCascadeCombinedPipeline", "is several pipelines in one"),
    ],
)
def test_what_makes_no_picture_from_a_text_step_by_step_is_refused_by_its_parameters(kind: str, why: str) -> None:
    import diffusers

    from predictor.pictures.model_defaults import NO_DEFAULTS
    from predictor.pictures.pipeline import Pipeline

    pipe: Any = object.__new__(getattr(diffusers, kind))
    if "Combined" in kind:
        vars(pipe)["prior_pipe"] = diffusers.DiffusionPipeline()

    with pytest.raises(ModelError, match=f"{kind} {why}"):
        Pipeline(pipe, NO_DEFAULTS)


def test_a_pipeline_without_a_prompt_is_refused(load: Any, tmp_path: Path) -> None:
    import diffusers

    library: Any = diffusers
    unet = library.UNet2DModel(
        sample_size=8, block_out_channels=(8,), norm_num_groups=2, down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",), layers_per_block=1,
    )  # fmt: skip
    library.DDPMPipeline(unet, library.DDPMScheduler()).save_pretrained(tmp_path)

    assert "DDPMPipeline makes no pictures from text" in refused(load, tmp_path)


def test_code_that_comes_with_a_model_is_not_run(load: Any, broken: Path) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps(index | {"_class_name": ["evil", "Evil"]}))
    ran = broken / "ran"
    (broken / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")

    refused(load, broken)

    assert not ran.exists()


def test_a_folder_with_half_a_pipeline_is_refused(load: Any, broken: Path) -> None:
    shutil.rmtree(broken / "vae")

    refused(load, broken)


def test_an_index_that_is_no_json_is_refused(load: Any, broken: Path) -> None:
    (broken / "model_index.json").write_text("{")

    refused(load, broken)


# Which kind


def test_the_folder_says_what_the_model_makes(tiny_sd: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert check_source(str(tiny_sd)) == "image"
    assert check_source(str(tiny_model)) == "text"
    with pytest.raises(ModelError, match=r"holds no text model: there is no config\.json"):
        check_source(str(tiny_sd), "text")
    with pytest.raises(ModelError, match=r"holds no image model: there is no model_index\.json"):
        check_source(str(tiny_model), "image")
    with pytest.raises(ModelError, match="there is no folder"):
        check_source(str(tmp_path / "nowhere"), "image")


# Words


def test_a_byte_level_tokenizer_reads_any_text(pipeline: Any) -> None:
    tokenizer = pipeline.pipe.tokenizer
    assert tokenizer.unk_token == tokenizer.eos_token, "as in CLIP"

    assert pipeline.understood("a cat and 一只猫") is None


def test_a_word_level_tokenizer_says_which_words_it_knows(pipeline: Any, words: Any) -> None:
    import copy

    reader = copy.copy(pipeline)
    reader.pipe = copy.copy(pipeline.pipe)
    reader.pipe.register_modules(tokenizer=words)

    assert reader.understood("a red dragon, a cat") == ["a", "red", "a", "cat"]
    assert reader.understood("dragon") == []
    assert reader.understood("cat " * 5_000) == ["cat"] * 16, "those that fit"


def test_a_tokenizer_of_pieces_of_words_does_not_say_which_words_it_knows(pipeline: Any, pieces: Any) -> None:
    import copy

    reader = copy.copy(pipeline)
    reader.pipe = copy.copy(pipeline.pipe)
    reader.pipe.register_modules(tokenizer=pieces)

    assert reader.understood("a cat") is None


def test_weights_are_packed_on_a_cpu_unless_that_is_not_wanted(tiny_sd: Path) -> None:
    from predictor.cpu.features import computes_packed_float32
    from predictor.cpu.packed_convolution import PackedConvolution
    from predictor.pictures.pipeline_loading import load_pipeline

    packed, plain = (
        load_pipeline(str(tiny_sd), "cpu", "auto", lambda _phase: None, pack_weights=wanted) for wanted in (True, False)
    )
    assert any(isinstance(layer, PackedConvolution) for layer in packed.denoiser.modules()) == computes_packed_float32()
    assert not any(isinstance(layer, PackedConvolution) for layer in plain.denoiser.modules())
