"""A generation as it is seen from here: its phases from its events, and at its end its metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
            metrics.PROMPT_TOKENS.labels(telemetry.model).inc(event.usage.prompt_tokens)
            metrics.GENERATION_TOKENS.labels(telemetry.model).inc(event.usage.completion_tokens)
            gen_ai.describe_result(telemetry, event)
            telemetry.enter("deliver")
        case PictureResultEvent():
            metrics.PICTURES.labels(telemetry.model).inc(len(event.images))
            telemetry.enter("deliver")


def _count(telemetry: GenerationTelemetry) -> None:
    model = telemetry.model
    for phase, seconds in telemetry.phases.items():
        metrics.PHASE.labels(model, phase).observe(seconds)
    if telemetry.first_token_at is not None:
        metrics.FIRST_TOKEN.labels(model).observe(telemetry.first_token_at - telemetry.began)
    if telemetry.phase == "deliver":
        metrics.WHOLE.labels(model).observe(telemetry.seconds)
        tokens, decoding = telemetry.completion_tokens, telemetry.phases.get("decode")
        if tokens is not None and tokens > 1 and decoding is not None:
            metrics.PER_TOKEN.labels(model).observe(decoding / (tokens - 1))
