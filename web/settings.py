"""The settings of web: each is an environment variable (`PORT`) and a flag (`--port`)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.limits import (
    BODY_BYTES,
    BODY_SECONDS,
    MAX_TOKENS,
    PROMPT_CHARS,
    SEND_BYTES_PER_SECOND,
    SEND_SECONDS,
    RequestLimits,
)
from web.setting_values import (
    Authorities,
    BaseUrl,
    Overrides,
    RootPath,
    StoreUrl,
    in_pod,
    lower,
    none_if_empty,
    trust,
)
from web.telemetry_settings import TelemetrySettings
from web.upstream_settings import UpstreamSettings
from web.webhook_settings import WebhookSettings
from wire.shared_store.address import FORMS
from wire.sse import HEARTBEAT_SECONDS


class Settings(UpstreamSettings, WebhookSettings, TelemetrySettings, BaseSettings):
    """Light web container of Shangcai: POST /generate in front of one or more OpenAI-style model servers. Each flag is
    an environment variable, too: --read-seconds is READ_SECONDS."""

    model_config = SettingsConfigDict(
        frozen=True,
        cli_prog_name="python -m web",
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    host: str = Field(default="0.0.0.0", min_length=1, description="Address to listen on.")  # noqa: S104 - a container
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root_path: RootPath = Field(
        default="", description="Prefix under which a proxy serves this, and which it takes off: /shangcai."
    )
    public_url: BaseUrl | None = Field(
        default=None,
        description="Address that clients have of this server, root_path included, for the addresses of pictures. "
        "Unset, it is what a request says: its Host, or what trusted_hops forward.",
    )

    routes: Annotated[Literal["all", "inbox"], BeforeValidator(lower)] = Field(
        default="all",
        description="What is served: all, or inbox: POST /events, POST /warm with the same proof, and health.",
    )

    callers: Annotated[Literal["off", "keys", "jwt", "header"] | None, BeforeValidator(lower)] = Field(
        default=None,
        description="How callers are told apart: off (not at all), keys (of callers_file), jwt (tokens of "
        "callers_issuer), or header (of a gateway). "
        "Unset, it is off on one machine, and in a pod the start is refused.",
    )
    callers_file: Path | None = Field(
        default=None,
        description="The callers and the hashes of their keys, as python -m web.callers makes them; read again when "
        "it changes.",
    )
    callers_issuer: BaseUrl | None = Field(
        default=None, description="Issuer of the callers' tokens; its OpenID Connect discovery document is read."
    )
    callers_audience: str | None = Field(
        default=None, min_length=1, description="Audience that their tokens must have."
    )
    callers_claim: str = Field(default="sub", min_length=1, description="Their claim that is the caller's name.")
    callers_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Secret that the ids of jobs with an Idempotency-Key are made with, so that nobody finds a job by "
        "guessing its key, the salts of predictors' caches, and the signatures of pictures' addresses; the same on all "
        "replicas. Unset, one is drawn where it is needed, and kept where the jobs are; for the salts each replica "
        "draws its own.",
    )
    callers_header: str = Field(
        default="X-Forwarded-User",
        pattern="^[A-Za-z0-9-]+$",
        description="Where a gateway names the caller; it counts from trusted_hops only.",
    )
    trusted_hops: list[IPvAnyNetwork] = Field(
        default=[], description="Networks of the proxies in front of this server whose headers are believed."
    )

    caller_concurrency: PositiveInt | None = Field(
        default=None, description="Most requests of one caller that may be under way; any number when unset."
    )
    caller_requests_per_minute: PositiveFloat | None = Field(
        default=None, description="Most generations that one caller may ask for; any number when unset."
    )
    caller_requests_burst: PositiveFloat | None = Field(
        default=None, description="Most of them at once; a minute's worth when unset."
    )
    caller_cost_per_minute: PositiveFloat | None = Field(
        default=None,
        description="Most tokens that one caller may ask for, where a denoising step of 512x512 pixels is one, too; "
        "any number when unset.",
    )
    caller_cost_burst: PositiveFloat | None = Field(
        default=None,
        description="Most of them at once; a minute's worth when unset. One larger request passes, too, "
        "when all are left, and the next ones wait longer.",
    )

    dispatch: Annotated[Literal["rest", "events"], BeforeValidator(lower)] = Field(
        default="rest",
        description="How requests get to the predictors: over REST to the models' URLs, or as CloudEvents to K_SINK.",
    )
    k_sink: Annotated[BaseUrl | None, BeforeValidator(none_if_empty)] = Field(
        default=None,
        description="Where events go: the address of a Broker. While it is unset and dispatch is events, web is not "
        "ready.",
    )
    k_ce_overrides: Overrides = Field(
        default="", description="Extensions of every event that is sent, in a SinkBinding's form."
    )
    k_ca_certs: Annotated[Authorities | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Certificates of the sink's authority, in PEM."
    )
    k_token: Path = Field(
        default=Path("/oidc/token"), description="Where the token lies that the sink wants, if it wants one."
    )
    event_source: str = Field(default="urn:shangcai:web", min_length=1, description="Source of the events sent.")
    events_audience: str | None = Field(
        default=None, min_length=1, description="Audience that an OIDC token must have on POST /events."
    )
    events_subjects: list[str] = Field(
        default=[],
        description="Whose tokens are taken, all when empty; * stands for anything: system:serviceaccount:NAMESPACE:*.",
    )
    events_issuer: BaseUrl = Field(
        default="https://kubernetes.default.svc", description="Where the issuer of these tokens is found."
    )
    events_secret: SecretStr | None = Field(
        default=None, min_length=16, description="Secret that takes the place of a token: as Bearer or as password."
    )
    events_open: bool = Field(
        default=False, description="Take events from everybody on a cluster, too, where neither of the two is set."
    )
    events_sources: list[str] = Field(default=[], description="Sources of events that are taken; all when empty.")
    artifacts_url: str | None = Field(
        default=None,
        description="Where results lie that are too large for an event or the store: file://, s3:// or gs://.",
    )

    store_url: StoreUrl | None = Field(
        default=None,
        description=f"Where jobs are kept for more than one replica: {FORMS}. In memory when unset.",
    )
    store_patience_seconds: PositiveFloat = Field(
        default=30, description="Longest outage of it that is waited out; then 503."
    )
    store_bytes: PositiveInt = Field(
        default=268_435_456, description="Most bytes of jobs; a quarter for open requests."
    )
    picture_bytes: PositiveInt = Field(default=100_663_296, description="Most bytes of pictures at a time, in base64.")
    log_entries: PositiveInt = Field(default=10_000, description="Most events of one job that can be replayed.")
    max_jobs: PositiveInt = Field(default=10_000, description="Most jobs that are queued or running.")
    max_job_runs: PositiveInt = Field(
        default=16, description="Most jobs of a model at once; one more of another caller."
    )
    job_seconds: PositiveFloat = Field(default=3_600, description="Longest that a job may take.")
    job_keep_seconds: PositiveFloat = Field(default=3_600, description="How long an ended job is remembered.")
    response_seconds: PositiveFloat = Field(
        default=3_600, description="How long an ended response of /v1/responses is remembered."
    )
    picture_url_seconds: PositiveInt = Field(
        default=3_600, description="How long a signed address of a picture may be read; no longer than its job is kept."
    )

    heartbeat_seconds: PositiveFloat = Field(
        default=HEARTBEAT_SECONDS, description="Silence after which an event stream sends a comment."
    )
    max_prompt_chars: PositiveInt = Field(
        default=PROMPT_CHARS,
        description="Longest prompt and negative prompt, in characters; a model's context may hold less. For very long "
        "ones raise a predictor's PREDICTOR_BODY_BYTES, too.",
    )
    max_tokens: PositiveInt = Field(
        default=MAX_TOKENS, description="Most tokens that a request may ask for; a model's context may hold fewer."
    )
    body_bytes: PositiveInt | None = Field(
        default=None,
        description=f"Largest request body; {BODY_BYTES} when unset, or what the longest prompts and pictures need.",
    )
    body_seconds: PositiveFloat = Field(default=BODY_SECONDS, description="Longest a client may take to send its body.")
    send_seconds: PositiveFloat = Field(
        default=SEND_SECONDS, description="Longest a client may refuse to take what is sent to it."
    )
    send_bytes_per_second: PositiveInt = Field(
        default=SEND_BYTES_PER_SECOND,
        description="Slowest that a client may take a large answer after SEND_SECONDS; else it is cut off.",
    )
    max_clients: PositiveInt = Field(
        default=1000,
        description="Most client connections with a request at a time; more get a 503, except on /healthz and "
        "/readyz. Of those without a request the longest idle are closed where there are too many.",
    )
    cors_origins: list[str] = Field(default=[], description="Origins whose pages may call this server; else none.")
    cors_credentials: bool = Field(
        default=False,
        description="Let those pages send cookies and other credentials of the browser, as a gateway may want them.",
    )
    keep_alive_seconds: PositiveInt = Field(
        default=75,
        description="How long a client's connection is kept for its next request; more than a load balancer in front "
        "keeps it (often 60), else both ends race, and its clients get a 502 now and then.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        missing = next((f"models.{name}.url" for name, model in self.models.items() if model.url is None), None)
        if self.dispatch == "rest" and missing:
            raise ValueError(f"{missing}: is required where dispatch is rest")
        if self.public_url is not None and not self.public_url.endswith(self.root_path):
            raise ValueError(f"public_url: must end with root_path, {self.root_path}")
        if self.cors_credentials and (not self.cors_origins or "*" in self.cors_origins):
            raise ValueError("cors_credentials: needs cors_origins, each by its name")
        return self

    @model_validator(mode="after")
    def _identified(self) -> Settings:
        if self.callers is None and self.on_cluster and self.routes == "all":
            choices = "keys, jwt, header, or off, where whoever reaches this server is to be served"
            raise ValueError(f"callers: is required in a pod: {choices}")
        needed = {
            "keys": ["callers_file"],
            "jwt": ["callers_issuer", "callers_audience"],
            "header": ["trusted_hops"],
        }
        if missing := next((name for name in needed.get(self.callers or "off", []) if not getattr(self, name)), None):
            raise ValueError(f"{missing}: is required where callers is {self.callers}")
        if self.webhook_hosts and self.callers in (None, "off") and not (self.webhook_secret or self.callers_file):
            raise ValueError("webhook_secret: is required where webhook_hosts is set and callers is off")
        return self

    @property
    def sink_missing(self) -> bool:
        """Whether requests are to go as events and nobody has said where to. This refuses no start: a SinkBinding, or
        whoever knows the Broker, may say so later. An inbox sends no requests."""
        return self.dispatch == "events" and self.k_sink is None and self.routes == "all"

    @property
    def events_unproven(self) -> bool:
        """Whether on a cluster whoever reaches this server may deliver a result, and nothing shows whose it is."""
        proof = self.events_audience or self.events_secret or self.predictor_token
        return self.on_cluster and self.events_open and proof is None

    @property
    def trust(self) -> ssl.SSLContext | bool:
        """How TLS servers are verified: by the system's authorities (True), or by the sink's, too."""
        return trust(self.k_ca_certs) if self.k_ca_certs else True

    @property
    def limits(self) -> RequestLimits:
        """What a request may ask for."""
        return RequestLimits(self.max_prompt_chars, self.max_tokens)

    @property
    def on_cluster(self) -> bool:
        """Whether this runs in a pod."""
        return in_pod()

    grace_seconds: PositiveInt = Field(
        default=30, description="After SIGTERM: longest wait for accepted requests to be finished."
    )
