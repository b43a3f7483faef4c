"""Server-sent events of one generation: any number of status and of reasoning, token and tool call or progress and
preview, then exactly one result or error."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contract.fields import Omittable, StrictModel
from contract.problems import Problem
from contract.result import PictureResult, TextResult
from contract.texts.logprobs import TokenLogprob


class StatusEvent(StrictModel):
    """What the request is waiting for, or that it is running. What is not known is absent."""

    event: ClassVar[str] = "status"
    state: Literal["pending", "asleep", "waking", "queued", "running"] = Field(
        description="`pending`: passed on to the model server, nothing heard yet. `queued`: in web's own queue, or in "
        "the model server's by its own word. More states may come: ignore those that you do not know."
    )
    phase: Omittable[str] = Field(default=None, description="What waking is busy with.")
    seconds: Omittable[float] = Field(default=None, description="Since waking has begun.")
    expected_seconds: Omittable[float] = Field(
        default=None,
        description="Of waking, how long it has taken before; of a job that is queued, until it has probably ended.",
    )
    position: Omittable[int] = Field(
        default=None, description="How many are due before it, where it is a job that waits; absent where nobody knows."
    )
    problem: Omittable[str] = Field(
        default=None, description="Type of the problem that its last attempt ended with, where a job waits for another."
    )
    reason: Omittable[str] = Field(default=None, description="The same in words.")
    resumed: Omittable[bool] = Field(
        default=None,
        description="Of running, where it goes on after its model server died: what came before still counts.",
    )


class ReasoningEvent(StrictModel):
    """The next piece of what the model thinks before its answer; the pieces joined are the result's
    `reasoning_content`."""

    event: ClassVar[str] = "reasoning"
    text: str


class TokenEvent(StrictModel):
    """The next piece of text; the pieces joined are the result's text."""

    event: ClassVar[str] = "token"
    text: str
    logprobs: Omittable[list[TokenLogprob]] = Field(
        default=None, description="Of the tokens since the last piece, where `top_logprobs` asked for that."
    )


class ToolCallEvent(StrictModel):
    """The next piece of a call that the model asks for. The first of each `index` has its id and its name; the
    `arguments` of all joined are the result's."""

    event: ClassVar[str] = "tool_call"
    index: int = Field(description="Which of the calls, from 0.")
    id: Omittable[str] = None
    name: Omittable[str] = None
    arguments: str = ""


class ProgressEvent(StrictModel):
    """Denoising steps that are done, of all the pictures' the slowest one's."""

    event: ClassVar[str] = "progress"
    step: int
    of: int
    eta_s: float | None = Field(default=None, description="Seconds that the rest will take at this pace.")


class PreviewEvent(StrictModel):
    """A small picture of what a picture looks like by now."""

    event: ClassVar[str] = "preview"
    image: int = Field(description="Which of the pictures, from 0.")
    step: int | None = Field(description="Denoising steps behind it; null when the runtime behind does not tell.")
    data: str = Field(description="The file, in base64.")
    media_type: str
    width: Omittable[int] = Field(
        default=None, description="Of the file; absent when the runtime behind does not tell."
    )
    height: Omittable[int] = Field(default=None, description="As `width`.")


class ResultEvent(TextResult):
    """The end of a text: the same document that the JSON answer holds."""

    event: ClassVar[str] = "result"


class PictureResultEvent(PictureResult):
    """The end of pictures: the same document that the JSON answer holds."""

    event: ClassVar[str] = "result"


class ErrorEvent(Problem):
    """The end: the same problem document that an error status would hold."""

    event: ClassVar[str] = "error"


LiveEvent = (
    StatusEvent
    | ReasoningEvent
    | TokenEvent
    | ToolCallEvent
    | ProgressEvent
    | PreviewEvent
    | ResultEvent
    | PictureResultEvent
)
"""What a generation yields. A failure is raised as a ProblemError, and becomes an ErrorEvent where it is sent."""

ON_THE_WAY: dict[str, type[LiveEvent]] = {
    kind.event: kind for kind in (StatusEvent, ReasoningEvent, TokenEvent, ToolCallEvent, ProgressEvent, PreviewEvent)
}
"""What comes before the end, by its name."""

Event = LiveEvent | ErrorEvent
"""What a stream of server-sent events holds."""
