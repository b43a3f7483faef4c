"""OpenAI's plain completions: the body of a request, and the documents that answer it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from contract.fields import PromptText
from contract.limits import PROMPTS
from predictor.engine.events import TextFinished
from predictor.engine.generation import Completion
from predictor.engine.tasks import TextTask
from predictor.protocols.openai.fields import TextRequest, fingerprint_member, only, totals


def _as_prompts(value: object) -> object:
    """OpenAI takes one prompt or several, as texts or as token ids; here they are texts."""
    several = value if isinstance(value, list) else [value]
    if any(isinstance(one, int | list) for one in several):
        raise ValueError("must be a text or a list of texts; token ids are not taken here")
    return several


class CompletionRequest(TextRequest):
    """Body of `POST /openai/v1/completions`: prompts go to the model as they are, without a chat template."""

    prompt: Annotated[list[PromptText], Field(min_length=1, max_length=PROMPTS), BeforeValidator(_as_prompts)]
    best_of: Annotated[int | None, AfterValidator(only(1))] = None
    echo: Annotated[bool | None, AfterValidator(only(False))] = None
    logprobs: Annotated[int | None, AfterValidator(only(None))] = None
    suffix: Annotated[str | None, AfterValidator(only(""))] = None

    @property
    def tasks(self) -> list[TextTask]:
        return [TextTask(prompt, self, cache_salt=self.cache_salt) for prompt in self.prompt]


class CompletionDocuments:
    """The answer to plain completions: a whole document, or chunks of the same shape."""

    def __init__(self, id: str, model: str, fingerprint: str | None) -> None:
        head = {"id": f"cmpl-{id}", "object": "text_completion", "created": int(time.time()), "model": model}
        self._head = {**head, **fingerprint_member(fingerprint)}

    def whole(self, completions: list[Completion]) -> dict[str, Any]:
        choices = [_choice(index, one.text, one.end.finish_reason) for index, one in enumerate(completions)]
        usage = totals([one.end for one in completions], max(one.queue_s for one in completions))
        return {**self._head, "choices": choices, **usage}

    def first(self, index: int) -> dict[str, Any]:
        return self._chunk(index, "")

    def piece(self, index: int, text: str) -> dict[str, Any]:
        return self._chunk(index, text)

    def last(self, index: int, end: TextFinished) -> dict[str, Any]:
        return self._chunk(index, "", end.finish_reason)

    def totals(self, ends: list[TextFinished], queue_s: float) -> dict[str, Any]:
        return {**self._head, "choices": [], **totals(ends, queue_s)}

    def _chunk(self, index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {**self._head, "choices": [_choice(index, text, finish_reason)]}


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
