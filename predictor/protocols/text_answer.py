"""A finished text as the contract's result."""

from __future__ import annotations

import time

from contract.events import ToolCallEvent
from contract.result import TextResult, Timing, Usage
from predictor.engine.events import TextFinished, ToolCallPiece
from predictor.engine.generation import Completion


def usage(end: TextFinished) -> Usage:
    """The tokens of a text."""
    return Usage(
        prompt_tokens=end.prompt_tokens,
        completion_tokens=end.completion_tokens,
        cached_tokens=end.cached_tokens or None,
    )


def tool_call_event(piece: ToolCallPiece) -> ToolCallEvent:
    """A piece of a call as the contract's event."""
    return ToolCallEvent(index=piece.index, id=piece.id, name=piece.name, arguments=piece.arguments)


def text_result(result_id: str, model: str, completion: Completion, begun: float) -> TextResult:
    """Of a request that came at `begun`, on the clock of time.monotonic."""
    return TextResult(
        id=result_id,
        model=model,
        text=completion.text,
        reasoning_content=completion.reasoning or None,
        tool_calls=list(completion.tool_calls) or None,
        logprobs=None if completion.logprobs is None else list(completion.logprobs),
        finish_reason=completion.end.finish_reason,
        usage=usage(completion.end),
        timing=Timing(
            queue_s=round(completion.queue_s, 4),
            first_token_s=round(completion.first_token_at - begun, 4),
            total_s=round(time.monotonic() - begun, 4),
        ),
    )
