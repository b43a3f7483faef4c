"""The events of a task, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.result import FinishReason
from contract.texts.logprobs import TokenLogprob

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Started:
    """The task has a slot, after `queue_s` seconds in the queue. Each of several pictures has its own."""

    queue_s: float


@dataclass(frozen=True, slots=True)
class Token:
    """The next piece of text, never part of a stop sequence. `logprobs` of the tokens that begin in it, where they are
    asked for; only then it may be empty, of tokens that are no text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next piece of what the model thinks before its answer; never empty. All of it comes before any Token."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """The next piece of a call of a function, number `index` of the text's calls, from 0. The first of each has its
    `id` and its `name`; the `arguments` of all joined are the JSON of an object. No Token comes after one."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TextFinished:
    """The last event of a task that ended well. Token counts include the end-of-sequence token; `cached_tokens` of the
    prompt were not computed again."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """`step` of `of` denoising steps are done of picture number `picture`, from 0."""

    picture: int
    step: int
    of: int


@dataclass(frozen=True, slots=True)
class Preview:
    """A small image of picture number `picture` after `step` steps."""

    picture: int
    step: int
    image: Image


@dataclass(frozen=True, slots=True)
class PictureFinished:
    """The last event of a picture. `understood`: the words of the prompt that it knows; None if it reads any."""

    picture: int
    image: Image
    seed: int
    steps: int
    understood: list[str] | None


EngineEvent = Started | Reasoning | Token | ToolCallPiece | TextFinished | Progress | Preview | PictureFinished
End = TextFinished | PictureFinished
EventListener = Callable[[EngineEvent], None]
