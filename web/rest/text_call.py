"""What a text model's server is asked, in OpenAI's shape, and how much of its answer is read."""

from __future__ import annotations

from typing import Any

from contract import GenerationRequest, Sampling
from contract.openai.fields import SAMPLING
from contract.request import Writing
from contract.texts.messages import ChatMessage
from web.client.call import Call
from web.rest.text_stream import Chunk, parse_chunk

EVENT_BYTES = 1_048_576
"""Longest event; one chunk of a completion has a few hundred bytes."""

ANSWER_BYTES = 16_777_216
"""Most bytes of the whole stream."""

_RAW = set(SAMPLING)
_CHAT = _RAW | set(Writing.model_fields) - set(Sampling.model_fields) - {"thinking", "chat_template_kwargs"}


def text_call(model: str, request: GenerationRequest) -> Call[Chunk]:
    """Always a stream: closing the connection then cancels the generation, and the first token can be timed."""
    head = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if request.raw:
        path, fields, names = "/completions", _raw(request), {"logprobs": "top_logprobs"}
    else:
        path, fields, names = "/chat/completions", _chat(request), _names(request)
    return Call(
        path=path,
        body=head | fields,
        parse=parse_chunk,
        event_bytes=EVENT_BYTES,
        answer_bytes=ANSWER_BYTES,
        names=names,
    )


def _raw(request: GenerationRequest) -> dict[str, Any]:
    logprobs = {} if request.top_logprobs is None else {"logprobs": request.top_logprobs}
    return {"prompt": request.prompt, **request.model_dump(include=_RAW, exclude_none=True), **logprobs}


def _chat(request: GenerationRequest) -> dict[str, Any]:
    logprobs = {} if request.top_logprobs is None else {"logprobs": True, "top_logprobs": request.top_logprobs}
    return {
        "messages": _messages(request),
        **request.model_dump(include=_CHAT, exclude_none=True),
        **logprobs,
        **_template(request),
    }


def _names(request: GenerationRequest) -> dict[str, str]:
    """A prompt goes there as the only message of a conversation, and `thinking` as a variable of the template."""
    prompt = {"messages": "prompt"} if request.messages is None else {}
    return prompt | ({"chat_template_kwargs": "thinking"} if request.chat_template_kwargs is None else {})


def _messages(request: GenerationRequest) -> list[dict[str, Any]]:
    system = [] if request.system is None else [{"role": "system", "content": request.system}]
    if request.messages is None:
        return [*system, {"role": "user", "content": request.prompt}]
    return [*system, *(_turn(message) for message in request.messages)]


def _turn(message: ChatMessage) -> dict[str, Any]:
    """Other servers than ours read texts and not parts, and know no empty refusal in a part."""
    turn = message.model_dump(exclude_none=True)
    return turn if message.content is None else turn | {"content": message.text}


def _template(request: GenerationRequest) -> dict[str, Any]:
    """vLLM's name for variables of the chat template. Templates call the switch as Qwen's does, or as DeepSeek's and
    Granite's do. Nothing where the client does not say: older predictors refuse the field, and the default is theirs.
    """
    wanted = request.thinks
    switch = {} if wanted is None else {"enable_thinking": wanted, "thinking": wanted}
    variables = switch | (request.chat_template_kwargs or {})
    return {"chat_template_kwargs": variables} if variables else {}
