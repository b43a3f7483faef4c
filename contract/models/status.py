"""Whether models are awake: where they scale to zero, the first request has to wake them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.fields import StrictModel
from contract.request import Kind

ModelState = Literal["asleep", "waking", "ready", "pending", "unknown"]
"""`pending`: it was asked for something and has not said a word yet. `unknown`: no answer of it has been seen yet, or
the last one was a failure. More may come: clients ignore states that they do not know."""


class Waking(StrictModel):
    """How far a model has come that is waking up."""

    phase: str | None = Field(default=None, description="What it is busy with; absent where that cannot be seen.")
    seconds: float = Field(description="Since it has begun.")
    expected_seconds: float | None = Field(
        default=None, description="How long it has taken before, from begin to end; absent while that is not known."
    )


class ModelStatus(StrictModel):
    """One entry of `GET /status`, and the answer of `POST /warm`. `since` is RFC 3339, in UTC."""

    name: str
    kind: Kind
    state: ModelState
    since: str | None = Field(default=None, description="When this state began, as far as it can be seen from here.")
    phase: str | None = Field(default=None, description="What waking is busy with; absent where that cannot be seen.")
    seconds: float | None = Field(default=None, description="Since waking has begun.")
    expected_seconds: float | None = Field(
        default=None, description="How long waking has taken before; absent while that is not known."
    )


class Statuses(StrictModel):
    """The document at `/status`."""

    models: list[ModelStatus]
