"""Settings of the predictor: command line flags, or environment variables with the prefix PREDICTOR_."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationInfo,
)
from pydantic_settings import CliImplicitFlag, SettingsConfigDict

from contract.cloudevents import EVENT_BYTES
from contract.limits import BODY_BYTES
from predictor.limits import (
    MAX_WAITING,
    REPLIES,
    REPLY_BYTES,
    REPLY_SECONDS,
)
from predictor.plan_settings import PlanSettings
from wire.cloudevents import overrides
from wire.deadline import REQUEST_SECONDS
from wire.shared_store.address import parse_address
from wire.telemetry.logs import LogFormat

NAME_PATTERN = r"^[A-Za-z0-9._-]*$"
"""Names that need no quoting in an address."""


def default_source(name: str) -> str:
    """The source of the events of the model called `name`, where nothing else is set."""
    return f"urn:shangcai:model:{name}"


def default_name(model: str) -> str:
    """The last part of its path. Of a GGUF file it is made fit for an address, without its ending."""
    path = Path(model)
    if path.suffix.lower() != ".gguf":
        return path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem)


def _default_name() -> str:
    """KServe sets this variable of a custom predictor to the name of its InferenceService."""
    return os.environ.get("INFERENCE_SERVICE_NAME", "")


def _variable(name: str) -> Callable[[], str | None]:
    """A default from an environment variable whose name others have chosen."""

    def read() -> str | None:
        return os.environ.get(name) or None

    return read


def _artifacts(url: str) -> str:
    from wire.artifacts import Artifacts  # imports fsspec, which few deployments need

    Artifacts(url)
    return url


def _store(url: SecretStr) -> SecretStr:
    parse_address(url.get_secret_value())
    return url


def _overrides(text: str) -> str:
    overrides(text)
    return text


def _has_sink(wanted: bool, info: ValidationInfo) -> bool:
    if wanted and info.data.get("k_sink") is None:
        raise ValueError("needs an address to send them to: K_SINK or --k-sink")
    return wanted


def _without_grpc(seconds: float, info: ValidationInfo) -> float:
    if seconds and info.data.get("grpc_port") is not None:
        raise ValueError("does not go with --grpc-port, on which nobody listens meanwhile")
    return seconds


class Settings(PlanSettings):
    """Serve one generative model over KServe's protocols and OpenAI's. Each flag is an environment variable, too:
    --max-waiting is PREDICTOR_MAX_WAITING. `python -m predictor plan` measures a model instead."""

    model_config = SettingsConfigDict(cli_prog_name="python -m predictor")

    name: str = Field(
        default_factory=_default_name,
        description="served name (default: INFERENCE_SERVICE_NAME, or the last part of the model's path without .gguf)",
        pattern=NAME_PATTERN,
    )
    host: str = Field(default="0.0.0.0", description="address to listen on")  # noqa: S104  a container's port is for its pod
    port: int = Field(default=8080, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    grpc_port: int | None = Field(default=None, ge=1, le=65535, description="gRPC port; no gRPC without")
    slots: int | None = Field(
        default=None,
        ge=1,
        description="slots that `plan` has found on such a machine: measuring them anew would only make a start longer",
    )
    max_waiting: int = Field(default=MAX_WAITING, ge=1, description="most requests that wait for a slot")
    body_bytes: int = Field(
        default=BODY_BYTES,
        ge=1,
        description="largest request body or gRPC message, pictures that are sent in aside; how long a prompt may be "
        "says the model's context alone",
    )
    enable_thinking: CliImplicitFlag[bool] = Field(
        default=False,
        description="whether a model that can reason does so before it answers, where a request does not say; one that "
        "always does is not kept from it",
    )
    compile: CliImplicitFlag[bool] = Field(
        default=False,
        description="whether torch compiles the decode step of a text model that is served in batches; the start takes "
        "minutes longer and needs a C++ compiler, which the image does not have; not measured on a GPU",
    )
    request_seconds: float = Field(
        default=REQUEST_SECONDS, gt=0, description="longest that a request may take; X-Request-Timeout may say less"
    )
    grace_seconds: int = Field(default=30, ge=0, description="longest that accepted requests may take after SIGTERM")
    quiet_seconds: float = Field(
        default=1.0, ge=0, description="after SIGTERM, leave once nothing new has come for so long"
    )
    idle_seconds: Annotated[float, AfterValidator(_without_grpc)] = Field(
        default=0,
        ge=0,
        description="leave once nothing has come for so long, where a supervisor listens meanwhile; never when 0",
    )
    nap: float = Field(
        default=0,
        ge=0,
        description="let the model sleep once nothing has come for so many seconds, and wake it for the next request; "
        "never when 0",
    )
    sleep_level: int | None = Field(
        default=None,
        ge=1,
        le=2,
        description="where nobody says how the model sleeps: 1 keeps the weights in the host's memory, 2 drops them "
        "and reads them again; when unset 1 on a GPU, and 2 on a CPU",
    )
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port on 127.0.0.1 for putting the model to sleep and waking it: /sleep, /wake_up, /is_sleeping, "
        "and load and unload of the V2 protocol; none when unset",
    )
    token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="secret without which nothing is generated: Authorization: Bearer, or the signature of an event; "
        "everybody may ask when unset",
    )
    events_open: CliImplicitFlag[bool] = Field(
        default=False,
        description="take events without that secret, too, as those of the caller `events`",
    )
    wait_for_restore: Path | None = Field(
        default=None,
        description="folder in which a predictor that has loaded its model waits to be dumped and restored, before it "
        "listens: `python -m predictor dump` gives it",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe log line")
    log_format: LogFormat | None = Field(
        default=None,
        description="form of the log: text, or json with an object a line (default: json in a pod, text elsewhere)",
    )

    event_source: str = Field(
        default="",
        description="source of the events that are sent (default: urn:shangcai:model:NAME)",
        max_length=512,
        pattern=r"^[!-~]*$",
    )
    event_bytes: int = Field(default=EVENT_BYTES, ge=1, description="largest event that holds its result itself")
    artifacts_url: Annotated[str, AfterValidator(_artifacts)] | None = Field(
        default_factory=_variable("ARTIFACTS_URL"),
        description="where larger results go: file://, s3:// or gs:// (default: ARTIFACTS_URL)",
    )
    store_url: Annotated[SecretStr, AfterValidator(_store)] | None = Field(
        default_factory=lambda: SecretStr(url) if (url := os.environ.get("STORE_URL")) else None,
        description="Redis or Valkey through which replicas know each other's replies to events (default: STORE_URL)",
    )
    max_replies: int = Field(default=REPLIES, ge=1, description="most replies to events that are remembered")
    reply_bytes: int = Field(default=REPLY_BYTES, ge=1, description="most bytes of replies that are remembered")
    reply_seconds: float = Field(default=REPLY_SECONDS, gt=0, description="how long a reply is remembered")
    k_sink: str | None = Field(
        default_factory=_variable("K_SINK"),
        pattern=r"^https?://.",
        description="where progress events go (default: K_SINK)",
    )
    k_ce_overrides: Annotated[str, AfterValidator(_overrides)] | None = Field(
        default_factory=_variable("K_CE_OVERRIDES"),
        description="extension attributes of progress events, as JSON (default: K_CE_OVERRIDES)",
    )
    progress_events: Annotated[CliImplicitFlag[bool], AfterValidator(_has_sink)] = Field(
        default=False, description="whether events tell of loading, of what is begun and how far it has come"
    )

    @property
    def served_name(self) -> str:
        """The model's name in requests and answers."""
        return self.name or default_name(self.model) or "model"

    @property
    def source(self) -> str:
        """The source of our events."""
        return self.event_source or default_source(self.served_name)

    @property
    def sink_extensions(self) -> dict[str, str]:
        """Extension attributes of the events that go to K_SINK."""
        return overrides(self.k_ce_overrides or "")
