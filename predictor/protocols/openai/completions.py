"""OpenAI's plain completions: the body of a request, and the documents that answer it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from contract.fields import PromptText
from predictor.engine.events import TextFinished
from predictor.engine.generation import Completion
from predictor.engine.tasks import TextTask
from predictor.protocols.openai.fields import TextRequest, only, totals


def _only_prompt(value: object) -> object:
    """OpenAI takes a list of prompts; one of one prompt is accepted."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class CompletionRequest(TextRequest):
    """Body of `POST /openai/v1/completions`: the prompt goes to the model as it is, without a chat template."""

    prompt: Annotated[PromptText, BeforeValidator(_only_prompt)]
    best_of: Annotated[int | None, AfterValidator(only(1))] = None
    echo: Annotated[bool | None, AfterValidator(only(False))] = None
    logprobs: Annotated[int | None, AfterValidator(only(None))] = None
    suffix: Annotated[str | None, AfterValidator(only(""))] = None

    @property
    def task(self) -> TextTask:
        return TextTask(self.prompt, self)


class CompletionDocuments:
    """The answer to one plain completion: a whole document, or chunks of the same shape."""

    def __init__(self, id: str, model: str) -> None:
        self._head = {"id": f"cmpl-{id}", "object": "text_completion", "created": int(time.time()), "model": model}

    def whole(self, completion: Completion) -> dict[str, Any]:
        chunk = self._chunk(completion.text, completion.end.finish_reason)
        return chunk | totals(completion.end, completion.queue_s)

    def first(self) -> dict[str, Any]:
        return self._chunk("")

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk(text)

    def last(self, end: TextFinished) -> dict[str, Any]:
        return self._chunk("", end.finish_reason)

    def totals(self, end: TextFinished, queue_s: float) -> dict[str, Any]:
        return {**self._head, "choices": [], **totals(end, queue_s)}

    def _chunk(self, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {
            **self._head,
            "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}],
        }
