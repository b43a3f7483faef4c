"""What an engine says of a task, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.result import FinishReason

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Started:
    """The task has left the queue; `queue_s` seconds it waited there. Comes for each of several pictures."""

    queue_s: float


@dataclass(frozen=True, slots=True)
class Token:
    """The next piece of text; never empty, and never part of a stop sequence."""

    text: str


@dataclass(frozen=True, slots=True)
class TextFinished:
    """The last event of a task that ended well. Token counts include the end-of-sequence token."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Denoising steps that are done of picture number `picture`."""

    picture: int
    step: int
    of: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What picture number `picture` looks like after `step` steps, small."""

    picture: int
    step: int
    image: Image


@dataclass(frozen=True, slots=True)
class PictureFinished:
    """The last event of a picture. `understood` are the words of the prompt that the model knows, or None."""

    picture: int
    image: Image
    seed: int
    steps: int
    understood: list[str] | None


EngineEvent = Started | Token | TextFinished | Progress | Preview | PictureFinished
End = TextFinished | PictureFinished
EventListener = Callable[[EngineEvent], None]
