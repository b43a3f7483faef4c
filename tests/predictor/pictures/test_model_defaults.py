"""Steps and guidance of a request without them: the deployment's, the model's, those of its family, the pipeline's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.problems import ProblemError
from predictor.errors import ModelError
from predictor.pictures.model_defaults import NO_DEFAULTS, ModelDefaults, known_defaults
from tests.predictor.pictures import transformer_pipelines as families
from tests.support import pipelines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


def scheduled(make: Callable[[], Any], scheduler: str, **config: Any) -> Callable[[], Any]:
    """A pipeline whose model is told by its scheduler."""

    def made() -> Any:
        pipe = make()
        pipe.scheduler = getattr(pipelines.library(), scheduler)(**config)
        return pipe

    return made


def schnell() -> Any:
    pipe = pipelines.flux()
    pipe.transformer.register_to_config(guidance_embeds=False)
    return pipe


def with_embedded_guidance() -> Any:
    pipe = pipelines.stable_diffusion("LCMScheduler")
    pipe.unet.register_to_config(time_cond_proj_dim=8)
    return pipe


def distilled(make: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        pipe = make()
        pipe.register_to_config(is_distilled=True)
        return pipe

    return made


FLOW, EULER, ANCESTRAL = (
    "FlowMatchEulerDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
)
LIGHTNING = {"use_dynamic_shifting": True, "base_shift": 1.0986, "max_shift": 1.0986}


@pytest.mark.parametrize(
    ("make", "source", "expected"),
    [
        pytest.param(
            scheduled(pipelines.stable_diffusion_xl, ANCESTRAL, timestep_spacing="trailing"),
            "/mnt/models",
            ModelDefaults(4, 0),
            id="sdxl-turbo",
        ),
        pytest.param(
            scheduled(pipelines.stable_diffusion, EULER, timestep_spacing="trailing"),
            "/mnt/models",
            ModelDefaults(4, 0),
            id="sd-turbo",
        ),
        pytest.param(pipelines.stable_diffusion_xl, "stabilityai/sdxl-turbo", ModelDefaults(4, 0), id="by-name"),
        pytest.param(pipelines.stable_diffusion_xl, "/mnt/models", NO_DEFAULTS, id="sdxl"),
        pytest.param(
            scheduled(
                pipelines.stable_diffusion_xl,
                EULER,
                timestep_spacing="trailing",
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
            ),
            "/mnt/models",
            NO_DEFAULTS,
            id="zero-terminal-snr",
        ),
        pytest.param(
            lambda: pipelines.stable_diffusion("LCMScheduler"), "/mnt/models", ModelDefaults(4, 0), id="lcm-lora"
        ),
        pytest.param(with_embedded_guidance, "/mnt/models", ModelDefaults(4), id="lcm"),
        pytest.param(schnell, "/mnt/models", ModelDefaults(4), id="flux-schnell"),
        pytest.param(pipelines.flux, "/mnt/models", NO_DEFAULTS, id="flux-dev"),
        pytest.param(families.z_image, "/mnt/models", NO_DEFAULTS, id="z-image"),
        pytest.param(
            scheduled(families.z_image, FLOW, shift=3.0), "/mnt/models", ModelDefaults(9, 0), id="z-image-turbo"
        ),
        pytest.param(families.qwen_image, "/mnt/models", NO_DEFAULTS, id="qwen-image"),
        pytest.param(
            scheduled(families.qwen_image, FLOW, **LIGHTNING), "/mnt/models", ModelDefaults(8, 1), id="qwen-lightning"
        ),
        pytest.param(families.krea_2, "/mnt/models", NO_DEFAULTS, id="krea-2"),
        pytest.param(families.flux_2_klein, "/mnt/models", NO_DEFAULTS, id="flux-2-klein-base"),
        pytest.param(distilled(families.flux_2_klein), "/mnt/models", ModelDefaults(4), id="flux-2-klein"),
        pytest.param(distilled(families.krea_2), "/mnt/models", ModelDefaults(8, 0), id="krea-2-turbo"),
    ],
)
def test_distilled_models_are_known_by_their_configuration(
    make: Callable[[], Any], source: str, expected: ModelDefaults, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    assert known_defaults(make(), source) == expected

    said = [record.getMessage() for record in caplog.records if record.name == "predictor.pictures.model_defaults"]
    assert len(said) == (expected != NO_DEFAULTS), "what was told by signs is in the log"
    assert not said or f"{expected.steps} steps" in said[0]


@pytest.fixture
def turbo(folder_of: Any, tmp_path: Path) -> Path:
    """A folder that says nothing of steps."""
    whole = folder_of(pipelines.stable_diffusion, "LCMScheduler")
    return Path(
        shutil.copytree(whole, tmp_path / "turbo", ignore=lambda _folder, names: {"generation_config.json"} & {*names})
    )


def loaded(folder: Path, **settings: Any) -> Any:
    from predictor.pictures.pipeline_loading import load_pipeline

    return load_pipeline(str(folder), "cpu", "auto", lambda _phase: None, **settings)


def test_a_deployments_defaults_come_first_then_the_models_then_its_familys(turbo: Path) -> None:
    assert (loaded(turbo).steps, loaded(turbo).guidance) == (4, 0)

    (turbo / "generation_config.json").write_text(json.dumps({"num_inference_steps": 6}))
    assert (loaded(turbo).steps, loaded(turbo).guidance) == (6, 0)

    set_by_hand = loaded(turbo, defaults=ModelDefaults(2, 1.5))
    assert (set_by_hand.steps, set_by_hand.guidance) == (2, 1.5)
    assert set_by_hand.parameters("a", seed=0, steps=3, guidance=0).guidance == 0, "and a request before all"


def test_more_steps_than_a_schedule_has_are_refused_before_they_are_queued(turbo: Path) -> None:
    pipeline = loaded(turbo)

    assert pipeline.parameters("a", seed=0, steps=50).steps == 50
    with pytest.raises(ProblemError, match="steps: the scheduler of this model has at most 50"):
        pipeline.parameters("a", seed=0, steps=51)
    with pytest.raises(ModelError, match=r"cannot load .*: --steps: the scheduler of this model has at most 50"):
        loaded(turbo, defaults=ModelDefaults(60))


def test_defaults_that_a_pipeline_does_not_take_are_refused(turbo: Path) -> None:
    from predictor.pictures.pipeline import Pipeline

    with pytest.raises(ModelError, match="--size: width and height must be multiples of 8"):
        loaded(turbo, size="33x32")
    with pytest.raises(ModelError, match="--max-pixels 1000 is less than the default size 32x32 has"):
        loaded(turbo, max_pixels=1000)
    with pytest.raises(ModelError, match="--guidance: FluxPipeline does not take this"):
        Pipeline(schnell(), NO_DEFAULTS).check(ModelDefaults(guidance=3))


async def test_a_request_without_them_takes_the_deployments(load: Any, turbo: Path, serve: Any) -> None:
    client = await serve(load(turbo, steps=2, guidance=1.5, size="24x40", max_pixels=1000))
    body = {"model": "painter", "prompt": "a cat", "seed": 1}

    answer = (await client.post("/openai/v1/images/generations", json=body)).json()

    assert (answer["steps"], answer["size"]) == (2, "24x40")
    refused = await client.post("/openai/v1/images/generations", json=body | {"size": "32x32"})
    assert "with at most 1000 pixels together" in refused.json()["detail"]


async def test_a_few_step_pipeline_has_its_intermediate_step_at_two_steps_only(of_sana: Any) -> None:
    """SANA Sprint refuses any other number of steps with its own default of it."""
    for steps in (1, 2, 4):
        of_sana.run(of_sana.parameters("a cat", seed=0, steps=steps), lambda _step, _latents: None)


@pytest.fixture
def of_sana() -> Any:
    from predictor.pictures.pipeline import Pipeline

    pipe = families.sana_sprint()
    pipe.set_progress_bar_config(disable=True)
    return Pipeline(pipe, NO_DEFAULTS)
