"""A generation that outlives the connection it was asked for on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.fields import Omittable, StrictModel, WebhookUrl
from contract.limits import WEBHOOK_ATTEMPTS
from contract.models.status import Waking
from contract.problems import Problem
from contract.request import Kind
from contract.result import Result

JobState = Literal["queued", "running", "completed", "failed", "cancelled"]
"""A job goes back from `running` to `queued` when its attempt breaks off; the other three are final."""

ENDS: frozenset[JobState] = frozenset({"completed", "failed", "cancelled"})


class WebhookDelivery(StrictModel):
    """One attempt to deliver the end of a job."""

    at: str
    status: Omittable[int] = Field(default=None, description="Of the answer, where there was one.")
    error: Omittable[str] = Field(default=None, description="Why there was none, or why it does not count.")


class Webhook(StrictModel):
    """Where the end of a job is posted to, and what has become of it."""

    url: WebhookUrl
    deliveries: list[WebhookDelivery] = Field(
        default=[], max_length=WEBHOOK_ATTEMPTS, description="All attempts whose end is known, the oldest first."
    )
    delivered: bool = Field(default=False, description="Whether one was answered with a 2xx.")


class Job(StrictModel):
    """The document at `/generations/{id}`. Times are RFC 3339, in UTC."""

    id: str
    state: JobState
    model: str
    kind: Kind
    position: int | None = Field(
        default=None, description="How many are due before it, those that run included, while it is queued."
    )
    expected_seconds: float | None = Field(
        default=None, description="Until it has probably ended, while it is queued; absent where that is not known."
    )
    waking: Waking | None = Field(default=None, description="How far its model is, while it is queued for that.")
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    deadline_at: str = Field(description="When it ends as failed, if it has not ended before.")
    result: Result | None = Field(default=None, description="Of a completed one.")
    error: Problem | None = Field(default=None, description="Of a failed or cancelled one.")
    webhook: Webhook | None = Field(default=None, description="Of one whose request names one.")


class JobList(StrictModel):
    """A page of the document at `/generations`."""

    generations: list[Job] = Field(
        description="A caller's own, the newest first, without position, waking, result, error and webhook."
    )
    next: str | None = Field(default=None, description="What `after` is for the next page; absent on the last one.")
