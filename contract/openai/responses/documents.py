"""A response as OpenAI's document, at any time of its life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contract.openai.error_codes import field_code
from contract.openai.responses.field_names import as_sent
from contract.openai.responses.kept import KeptResponse
from contract.problems import Problem, raised
from contract.result import TextResult, Usage
from contract.texts.logprobs import TokenLogprob
from contract.texts.tools import ToolCall

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
Document = dict[str, Any]

PREFIX = "resp_"


@dataclass(frozen=True)
class ResponseDocuments:
    """The documents of one response, whose id is its job's. `created` is in seconds since 1970."""

    job: str
    created: float
    model: str
    kept: KeptResponse

    def begun(self, status: Status) -> Document:
        """While it has no result."""
        return self._document(status)

    def failed(self, problem: Problem, ended: float, *, cancelled: bool) -> Document:
        """It has ended without a result."""
        status: Status = "cancelled" if cancelled else "failed"
        error = None if cancelled else {"code": _code(problem), "message": as_sent(raised(problem)).problem.detail}
        return self._document(status, error=error, completed_at=int(ended))

    def ended(self, result: TextResult, ended: float, output: Sequence[Document] | None = None) -> Document:
        """It has ended with this result; `output` are the items that it is in, in the order in which they came."""
        cut = result.finish_reason == "length"
        more = {
            "output": list(output or self.output(result)),
            "usage": _usage(result.usage),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": None if cut else int(ended),
        }
        return self._document("incomplete" if cut else "completed", **more)

    def output(self, result: TextResult) -> list[Document]:
        """The items of a result. Where it was cut, the last one is incomplete."""
        status: Status = "incomplete" if result.finish_reason == "length" else "completed"
        items = []
        calls = result.tool_calls or ()
        if result.reasoning_content:
            items.append(self.reasoning(result.reasoning_content, "completed" if result.text or calls else status))
        if result.text or not calls:
            items.append(self.message(result.text, "completed" if calls else status, result.logprobs))
        items += [self.call(number, call, "completed") for number, call in enumerate(calls)]
        items[-1]["status"] = status
        return items

    def reasoning(self, text: str | None, status: Status) -> Document:
        content = [] if text is None else [reasoning_part(text)]
        return {"id": f"rs_{self.job}", "type": "reasoning", "summary": [], "content": content, "status": status}

    def message(self, text: str | None, status: Status, logprobs: Sequence[TokenLogprob] | None = None) -> Document:
        content = [] if text is None else [text_part(text, logprobs)]
        return {
            "id": f"msg_{self.job}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def call(self, number: int, call: ToolCall, status: Status) -> Document:
        return {
            "id": f"fc_{self.job}_{number}",
            "type": "function_call",
            "call_id": call.id,
            "name": call.function.name,
            "arguments": call.function.arguments,
            "status": status,
        }

    def _document(self, status: Status, **more: Any) -> Document:
        return {
            "id": PREFIX + self.job,
            "object": "response",
            "created_at": int(self.created),
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [],
            "usage": None,
            **self.kept.asked,
            **more,
        }


def text_part(text: str, logprobs: Sequence[TokenLogprob] | None = None) -> Document:
    """The text of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": likely(logprobs)}


def reasoning_part(text: str) -> Document:
    """What was thought."""
    return {"type": "reasoning_text", "text": text}


def likely(logprobs: Sequence[TokenLogprob] | None) -> list[Document]:
    """How likely tokens were."""
    return [token.model_dump() for token in logprobs or ()]


def _usage(usage: Usage) -> Document:
    """Tokens of reasoning are among the output's; no model server tells them apart."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _code(problem: Problem) -> str:
    """OpenAI's codes are few; the message says more."""
    if code := field_code(problem):
        return code
    if problem.status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if problem.status < 500 else "server_error"
