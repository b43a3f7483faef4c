"""How the benchmarks ask for a text over HTTP, in OpenAI's shape and in that of /generate."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class RequestShape:
    """A path, and what is sent to and comes from it."""

    path: str
    body: Callable[[int, int, bool], dict[str, Any]]
    """Of request number n: how many tokens or steps, and whether to stream."""

    started: str
    """Part of the streamed line that says that the generation has started."""

    progressed: str
    """Part of the streamed line of each token or step."""


def prompt(number: int) -> str:
    """The same text for the same number."""
    return f"第{number}首 {random.Random(number).choice('春夏秋冬')}天的{random.Random(number + 99).choice('山水花月')}"


def _chat_body(number: int, tokens: int, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": prompt(number)}]}
    body |= {"max_tokens": tokens, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def _generate_body(number: int, tokens: int, stream: bool) -> dict[str, Any]:
    return {"prompt": prompt(number), "max_tokens": tokens, "stream": stream}


CHAT = RequestShape("/openai/v1/chat/completions", _chat_body, '"role":"assistant"', '"delta":{"content":')
WEB_CHAT = replace(CHAT, path="/v1/chat/completions")
GENERATE = RequestShape("/generate", _generate_body, '"state":"running"', '{"text":')
