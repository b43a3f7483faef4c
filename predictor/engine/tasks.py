"""What an engine is asked for: a text or pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from contract.request import Painting, Sampling


class Message(TypedDict):
    """One turn of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TextTask:
    """A text to write. A conversation goes through the model's chat template, a plain string as it is.

    `seconds` is how long the client waits for the end; None is without a limit.
    """

    prompt: str | tuple[Message, ...]
    sampling: Sampling
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PictureTask:
    """Pictures to paint, with so many `previews` of each on the way. `seconds` as for a text."""

    prompt: str
    painting: Painting
    previews: int = 0
    seconds: float | None = None


Task = TextTask | PictureTask
