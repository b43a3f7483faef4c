"""What an engine is made of."""

from __future__ import annotations

from dataclasses import dataclass

from predictor.limits import MAX_WAITING
from predictor.plan_settings import LoadFormat, Quantization


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """`model` is a folder or a hub id, safetensors only, or for texts a GGUF file; no remote code. `revision` is a
    branch, a tag or a commit of a hub id; None is its default branch.

    `device` is a torch device, or "auto" for CUDA where it can be used. `dtype` is the name of a torch dtype; "auto" is
    float32 on a CPU, but for large texts what predictor.cpu.number_types says; else bfloat16 for pictures and the
    checkpoint's own for texts, but not float32 on a GPU that computes bfloat16. `memory` is in bytes; None is all that
    the device has. At most `max_concurrency` slots are measured, by default those of predictor.limits; pictures take
    `slots` unmeasured where they are known. Only texts use `load_format`, `quantize` (what the weights of linear layers
    become), `pack_weights` (whether they are rearranged for a CPU's kernels), `max_length` (tokens; None is MAX_LENGTH
    of predictor.limits, or as many as share a batch), `enable_thinking`: whether a model reasons first where a request
    does not say, and `compile`: whether torch compiles the decode step. Only pictures use `steps`, `guidance` and
    `size` ("WIDTHxHEIGHT"), which requests may leave out, and `max_pixels`, the most of a picture; None is the model's
    own. What was measured is kept in `cache_folder`: see predictor.loading.cache_folders; empty is nowhere.
    """

    model: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_concurrency: int | None = None
    max_waiting: int = MAX_WAITING
    memory: int | None = None
    slots: int | None = None
    max_length: int | None = None
    load_format: LoadFormat = "auto"
    enable_thinking: bool = False
    compile: bool = False
    quantize: Quantization | None = None
    pack_weights: bool = True
    steps: int | None = None
    guidance: float | None = None
    size: str | None = None
    max_pixels: int | None = None
    cache_folder: str = ""
