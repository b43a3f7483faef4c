"""Settings of `python -m predictor plan`, which are settings of the server, too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ByteSize, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_settings import BaseSettings, CliImplicitFlag, SettingsConfigDict

from contract.fields import Guidance, PictureSize, Steps
from contract.limits import PICTURE_SIDE
from contract.request import Kind
from predictor.limits import MAX_CONCURRENCY, MAX_CUDA_CONCURRENCY, MAX_LENGTH, MAX_SMALL_CONCURRENCY

MOUNT_POINT = "/mnt/models"
"""Where KServe's storage initializer puts the model."""

LoadFormat = Literal["auto", "safetensors", "runai_streamer", "fastsafetensors"]
"""How weights are read, named as vLLM names it."""

Quantization = Literal["int8", "int4"]
"""What the weights of a text model are made of while they are loaded."""


def _memory_size(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:  # Kubernetes writes Gi, pydantic reads GiB
        return check(value + "B" if isinstance(value, str) and value.endswith("i") else value)
    except ValidationError:
        raise ValueError(
            f"{value!r} is no amount of memory; give bytes, or a number above 0 with a unit, as in 24Gi, 24GiB or 24GB"
        ) from None


MemorySize = Annotated[ByteSize, Field(gt=0), WrapValidator(_memory_size)]


class PlanSettings(BaseSettings):
    """Measure a model and print the resources and the concurrency for its InferenceService."""

    model_config = SettingsConfigDict(
        env_prefix="PREDICTOR_", cli_kebab_case=True, cli_prog_name="python -m predictor plan", extra="forbid"
    )

    model: str = Field(
        default=MOUNT_POINT,
        description="folder or hub id of a transformers causal language model or a diffusers text-to-image pipeline, "
        "or a GGUF file: its path, OWNER/NAME/FILE.gguf on the hub, or a folder with one in it",
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="branch, tag or commit of a hub id; the hub's default branch when unset",
    )
    kind: Kind | None = Field(
        default=None, description="text or image; unset, the folder shows it, or the hub is asked"
    )
    device: str = Field(
        default="auto",
        description="torch device, such as cuda:1; auto takes CUDA where it can be used, and the CPU elsewhere",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto is float32 on a CPU, but bfloat16 for large text models that are stored so where the CPU "
        "computes it; elsewhere bfloat16 for pictures and for texts the checkpoint's own, but "
        "not float32 on a GPU that computes bfloat16",
    )
    load_format: LoadFormat = Field(
        default="auto",
        description="how the weights of a text model are read; auto takes, for a GPU, what is installed of "
        "runai_streamer and fastsafetensors, and transformers' own way otherwise",
    )
    quantize: Quantization | None = Field(
        default=None,
        description="make the weights of a text model's linear layers integers of 8 or 4 bits while they are loaded, "
        "with torchao: less memory, other texts. For plain checkpoints",
    )
    pack_weights: CliImplicitFlag[bool] = Field(
        default=True,
        description="whether weights of large linear layers are rearranged for a CPU's kernels; not with --compile",
    )
    max_concurrency: int | None = Field(
        default=None,
        ge=1,
        description=f"most slots, whatever memory would hold; when unset {MAX_CUDA_CONCURRENCY} on a GPU, and "
        f"{MAX_CONCURRENCY} on a CPU, where more only take longer ({MAX_SMALL_CONCURRENCY} of a small text model)",
    )
    max_length: int | None = Field(
        default=None,
        ge=2,
        description="most tokens of one text, prompt included, that a slot has room for; when unset "
        f"{MAX_LENGTH}, or as many as the model attends to, or as many as leave the texts beside them as they are "
        "(longrope, dynamic rope)",
    )
    steps: Steps | None = Field(
        default=None, description="denoising steps where a request leaves them out; the model's own when unset"
    )
    guidance: Guidance | None = Field(
        default=None, description="guidance where a request leaves it out; the model's own when unset"
    )
    size: PictureSize | None = Field(
        default=None,
        description="width and height of a picture where a request leaves them out, as in 512x512; the model's own "
        "when unset",
    )
    max_pixels: int | None = Field(
        default=None,
        ge=1,
        le=PICTURE_SIDE**2,
        description="most pixels of a picture; twice those of the default size when unset, or as many as that has "
        "where memory holds no more",
    )
    memory: MemorySize | None = Field(
        default=None, description="memory to plan with, as in 24Gi; what there is when unset"
    )
    cache_folder: str = Field(
        default="auto",
        description="where what was measured of a model is kept for its next start, and a converted GGUF file, beside "
        "what came with the model in MODEL/.shangcai; auto is /mnt/cache where that is mounted, else the user's folder "
        "for caches, or in a pod the model's own; nothing is remembered when empty",
    )
    lean_imports: CliImplicitFlag[bool] = Field(
        default=True,
        description="whether the start imports only the parts of kserve, torch, transformers and diffusers that it "
        "uses; with versions that this is not tested with it imports all, whatever is set",
    )


class PlanCommandSettings(PlanSettings):
    """Measure a model and print the resources and the concurrency for its InferenceService."""

    save: CliImplicitFlag[bool] = Field(
        default=False,
        description="keep what is measured in MODEL/.shangcai, or in --cache-folder where that is set: starts on such "
        "a machine, with these settings, measure nothing",
    )
