"""Settings of the predictor: command line flags, or environment variables with the prefix PREDICTOR_."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.request import Kind
from predictor.source import MOUNT_POINT
from predictor.transformers_engine import MAX_CONCURRENCY, MAX_LENGTH, MAX_WAITING
from wire.deadline import REQUEST_SECONDS

NAME_PATTERN = r"^[A-Za-z0-9._-]*$"
"""Names that need no quoting in an address."""


def _default_name() -> str:
    """KServe tells a custom predictor the name of its InferenceService."""
    return os.environ.get("INFERENCE_SERVICE_NAME", "")


def _with_unit(value: object) -> object:
    """Kubernetes writes Gi where others write GiB."""
    return value + "B" if isinstance(value, str) and value.endswith("i") else value


Memory = Annotated[ByteSize, Field(gt=0), BeforeValidator(_with_unit)]


class PlanSettings(BaseSettings):
    """Measure a model and print the resources and the concurrency for its InferenceService."""

    model_config = SettingsConfigDict(
        env_prefix="PREDICTOR_", cli_kebab_case=True, cli_prog_name="python -m predictor plan", extra="forbid"
    )

    model: str = Field(
        default=MOUNT_POINT,
        description="folder or hub id of a transformers causal language model or a diffusers text-to-image pipeline",
    )
    kind: Kind | None = Field(
        default=None, description="text or image; found out from a folder, and text for a hub id, when unset"
    )
    device: str = Field(default="auto", description="torch device; auto takes CUDA where there is one")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto is float32 on a CPU; elsewhere bfloat16 for pictures and for texts the checkpoint's own",
    )
    max_concurrency: int = Field(default=MAX_CONCURRENCY, ge=1, description="most slots, whatever memory would hold")
    max_length: int = Field(
        default=MAX_LENGTH, ge=2, description="most tokens of one text, prompt included, that a slot has room for"
    )
    memory: Memory | None = Field(default=None, description="memory to plan with, as in 24Gi; what there is when unset")


class Settings(PlanSettings):
    """Serve one generative model over KServe's protocols and OpenAI's. Each flag is an environment variable, too:
    --max-waiting is PREDICTOR_MAX_WAITING. `python -m predictor plan` measures a model instead."""

    model_config = SettingsConfigDict(cli_prog_name="python -m predictor")

    name: str = Field(
        default_factory=_default_name,
        description="served name (default: INFERENCE_SERVICE_NAME, or the last part of the model's path)",
        pattern=NAME_PATTERN,
    )
    host: str = Field(default="0.0.0.0", description="address to listen on")  # noqa: S104  a container's port is for its pod
    port: int = Field(default=8080, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    grpc_port: int | None = Field(default=None, ge=1, le=65535, description="gRPC port; no gRPC without")
    max_waiting: int = Field(default=MAX_WAITING, ge=1, description="most requests that wait for a slot")
    request_seconds: float = Field(
        default=REQUEST_SECONDS, gt=0, description="longest that a request may take; X-Request-Timeout may say less"
    )
    grace_seconds: int = Field(default=30, ge=0, description="longest that accepted requests may take after SIGTERM")
    quiet_seconds: float = Field(
        default=1.0, ge=0, description="after SIGTERM, leave once nothing new has come for so long"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe log line")

    @property
    def served_name(self) -> str:
        return self.name or Path(self.model).name or "model"
