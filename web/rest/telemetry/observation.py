"""A generation as it is seen from here: its phases from its events, and at its end its metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from contract import (
    GenerationRequest,
    Kind,
    PictureResultEvent,
    PreviewEvent,
    ProblemError,
    ProgressEvent,
    ReasoningEvent,
    ResultEvent,
    TokenEvent,
    ToolCallEvent,
)
from contract.events import LiveEvent
from web import metrics
from web.rest.telemetry import gen_ai
from wire.telemetry.generation import GenerationTelemetry

# To look a series up takes `labels` longer than to count. As there, they are as many as models and phases.
_PHASE = cache(metrics.PHASE.labels)
_FIRST_TOKEN = cache(metrics.FIRST_TOKEN.labels)
_WHOLE = cache(metrics.WHOLE.labels)
_PER_TOKEN = cache(metrics.PER_TOKEN.labels)
_PROMPT_TOKENS = cache(metrics.PROMPT_TOKENS.labels)
_GENERATION_TOKENS = cache(metrics.GENERATION_TOKENS.labels)


@contextmanager
def observed(telemetry: GenerationTelemetry, request: GenerationRequest, kind: Kind) -> Iterator[None]:
    """Around a generation, from when its request is accepted to when nothing of it is left to deliver."""
    gen_ai.describe_request(telemetry, request, kind)
    problem = None
    try:
        yield
    except ProblemError as error:
        problem = error.kind.slug
        raise
    finally:
        telemetry.end(problem)
        _count(telemetry)


def watched(telemetry: GenerationTelemetry, event: LiveEvent) -> None:
    """The model server has sent this."""
    match event:
        case ReasoningEvent() | TokenEvent() | ToolCallEvent():
            telemetry.first_token("decode")
        case ProgressEvent() | PreviewEvent():
            telemetry.first_token("denoise")
        case ResultEvent():
            if (queue_s := event.timing.queue_s) is not None:
                # Where nobody sees the text before its end, the model server does not say that its turn has come.
                telemetry.divide("queue", queue_s, "prefill")
            telemetry.prompt_tokens = event.usage.prompt_tokens
            telemetry.completion_tokens = event.usage.completion_tokens
            _PROMPT_TOKENS(telemetry.model).inc(event.usage.prompt_tokens)
            _GENERATION_TOKENS(telemetry.model).inc(event.usage.completion_tokens)
            gen_ai.describe_result(telemetry, event)
            telemetry.enter("deliver")
        case PictureResultEvent():
            metrics.PICTURES.labels(telemetry.model).inc(len(event.images))
            telemetry.enter("deliver")


def _count(telemetry: GenerationTelemetry) -> None:
    model = telemetry.model
    phases = telemetry.phases
    for phase, seconds in phases.items():
        _PHASE(model, phase).observe(seconds)
    if telemetry.first_token_at is not None:
        _FIRST_TOKEN(model).observe(telemetry.first_token_at - telemetry.began)
    if telemetry.phase == "deliver":
        _WHOLE(model).observe(telemetry.seconds)
        tokens, decoding = telemetry.completion_tokens, phases.get("decode")
        if tokens is not None and tokens > 1 and decoding is not None:
            _PER_TOKEN(model).observe(decoding / (tokens - 1))
