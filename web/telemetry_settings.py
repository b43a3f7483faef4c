"""The settings of web that are about what it tells of itself."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from web.setting_values import in_pod
from wire.telemetry.logs import LogFormat

METRICS_PORT = 9464
"""In a pod: the port that exporters of OpenTelemetry have for Prometheus."""


class TelemetrySettings(BaseModel):
    """Its log, and where its metrics are read."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level to log.")
    log_format: LogFormat | None = Field(
        default=None,
        description="Form of the log: text, or json with an object a line. Unset, it is json in a pod, and text "
        "elsewhere.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description=f"Port of its own for GET /metrics, on the same address; 0 is none. Unset, it is {METRICS_PORT} in "
        "a pod, and none elsewhere.",
    )

    @property
    def open_metrics_port(self) -> int | None:
        """Where metrics are served, if they are."""
        if self.metrics_port is None:
            return METRICS_PORT if in_pod() else None
        return self.metrics_port or None
