"""What a text model's server is asked, in OpenAI's shape, and how much of its answer is read."""

from __future__ import annotations

from typing import Any

from contract import GenerationRequest
from web.client.call import Call
from web.rest.text_stream import Chunk, parse_chunk

EVENT_BYTES = 1_048_576
"""Longest event; one chunk of a completion has a few hundred bytes."""

ANSWER_BYTES = 16_777_216
"""Most bytes of the whole stream."""

_FIELDS = {"max_tokens", "temperature", "top_p", "stop", "seed"}


def text_call(model: str, request: GenerationRequest) -> Call[Chunk]:
    """Always a stream: closing the connection then cancels the generation, and the first token can be timed."""
    return Call(
        path="/chat/completions",
        body={
            "model": model,
            "messages": [{"role": "user", "content": request.prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **request.model_dump(include=_FIELDS, exclude_none=True),
            **_thinking(request.thinking),
        },
        parse=parse_chunk,
        event_bytes=EVENT_BYTES,
        answer_bytes=ANSWER_BYTES,
    )


def _thinking(wanted: bool | None) -> dict[str, Any]:
    """vLLM's name for variables of the chat template. Templates call this one as Qwen's does, or as DeepSeek's and
    Granite's do. Nothing where the client does not say: older predictors refuse the field, and the default is theirs.
    """
    return {} if wanted is None else {"chat_template_kwargs": {"enable_thinking": wanted, "thinking": wanted}}
