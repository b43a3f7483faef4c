"""Settings of the predictor: command line flags, or environment variables with the prefix PREDICTOR_."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from predictor.source import MOUNT_POINT
from predictor.transformers_engine import MAX_WAITING


def _default_name() -> str:
    """KServe tells a custom predictor the name of its InferenceService."""
    return os.environ.get("INFERENCE_SERVICE_NAME", "")


class Settings(BaseSettings):
    """Serve one generative model over KServe's protocols and OpenAI's."""

    model_config = SettingsConfigDict(
        env_prefix="PREDICTOR_", cli_kebab_case=True, cli_prog_name="python -m predictor", extra="forbid"
    )

    model: str = Field(default=MOUNT_POINT, description="folder or hub id of a transformers causal language model")
    name: str = Field(
        default_factory=_default_name,
        description="served name (default: INFERENCE_SERVICE_NAME, or the last part of the model's path)",
        pattern=r"^[A-Za-z0-9._-]*$",
    )
    host: str = Field(default="0.0.0.0", description="address to listen on")  # noqa: S104  a container's port is for its pod
    port: int = Field(default=8080, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    grpc_port: int | None = Field(default=None, ge=1, le=65535, description="gRPC port; no gRPC without")
    device: str = Field(default="auto", description="torch device; auto takes CUDA where there is one")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto is float32 on a CPU and the checkpoint's own elsewhere"
    )
    max_waiting: int = Field(default=MAX_WAITING, ge=1, description="most requests that wait for a slot")
    grace_seconds: int = Field(default=30, ge=0, description="longest that accepted requests may take after SIGTERM")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe log line")

    @property
    def served_name(self) -> str:
        return self.name or Path(self.model).name or "model"
