"""The settings of web that are about the model servers."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from web.setting_values import BearerToken, ModelAddress, ModelName


class UpstreamSettings(BaseModel):
    """Where the models are served, and how long and how often they are asked."""

    models: dict[ModelName, ModelAddress] = Field(
        min_length=1,
        description='Served names and base URLs of their servers, as JSON: {"poet": "http://127.0.0.1:8081", '
        '"painter": {"url": "http://127.0.0.1:8082", "kind": "image"}}. The kind is text where none is given. '
        "An entry also takes path, where OpenAI's routes are (/openai/v1 where none is given, vLLM's is /v1), api_key, "
        "upstream_model: its name there, and match, a regular expression (Rust's syntax; case is ignored): a request "
        "that names no model goes to the first of its kind whose match is found in the first 2,000 characters of its "
        "prompt, or else to the first without one, or else to the first. Where it says no kind, it is the first "
        "model's. description states what GET /models says of it, in place of what it says of itself.",
    )
    predictor_token: BearerToken | None = Field(
        default=None, description="Bearer token for the servers of all models whose entry has no api_key."
    )

    connect_seconds: PositiveFloat = Field(default=5, description="Longest wait for a connection to a model server.")
    read_seconds: PositiveFloat = Field(
        default=60, description="Longest silence of a model server; its heartbeats, if it sends any, break the silence."
    )
    idle_seconds: NonNegativeFloat = Field(
        default=60,
        description="How long after its last answer a model is taken to be awake still; 0 where models never sleep.",
    )
    states_file: Path | None = Field(
        default=None, description="Where scripts/run writes which models are awake; unset, it is derived from answers."
    )
    endpoint_slices: bool = Field(
        default=False,
        description="Watch the EndpointSlices of the models' Knative Services, for which a Role must allow it, to know "
        "at once which sleep and wake up. Of models in one namespace: the first one's.",
    )
    wake_seconds: PositiveFloat = Field(default=600, description="Longest that a model may take to wake up.")
    generate_seconds: PositiveFloat = Field(default=300, description="Longest a whole generation may take.")
    max_in_flight: PositiveInt = Field(
        default=80, description="Most requests on their way to one model; 1/20 more of callers with none. Others wait."
    )
    max_waiting: NonNegativeInt = Field(default=160, description="Most that wait so; more are told when to come again.")
    max_connections: PositiveInt = Field(default=100, description="Most connections to the model servers together.")
    pool_seconds: PositiveFloat = Field(default=5, description="Longest wait for one of these connections.")
    keepalive_seconds: PositiveFloat = Field(
        default=3,
        description="How long an idle connection is kept; less than model servers do (uvicorn: 5), "
        "else both ends race.",
    )

    def authorization(self, model: str) -> dict[str, str]:
        """The header by which the model's server knows web, if it wants one."""
        token = self.models[model].api_key or self.predictor_token
        return {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
