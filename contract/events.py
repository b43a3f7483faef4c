"""Server-sent events of one generation: any number of status and token, then exactly one result or error."""

from __future__ import annotations

from typing import ClassVar, Literal

from contract.fields import StrictModel
from contract.problems import Problem
from contract.result import TextResult


class StatusEvent(StrictModel):
    """What the request is waiting for, or that it is running."""

    event: ClassVar[str] = "status"
    state: Literal["queued", "running"]


class TokenEvent(StrictModel):
    """The next piece of text; the pieces joined are the result's text."""

    event: ClassVar[str] = "token"
    text: str


class ResultEvent(TextResult):
    """The end: the same document that the JSON answer holds."""

    event: ClassVar[str] = "result"


class ErrorEvent(Problem):
    """The end: the same problem document that an error status would hold."""

    event: ClassVar[str] = "error"


Event = StatusEvent | TokenEvent | ResultEvent | ErrorEvent
