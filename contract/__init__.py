"""The one definition of what Shangcai serves: requests, results, events, problems and their limits.

No I/O and no dependency but pydantic, so that the light web container and the heavy predictor can share it.
"""

from contract.events import ErrorEvent, Event, ResultEvent, StatusEvent, TokenEvent
from contract.limits import (
    BODY_BYTES,
    BODY_SECONDS,
    INSTANCES,
    MAX_TOKENS,
    PROMPT_CHARS,
    STOP_CHARS,
    STOP_SEQUENCES,
)
from contract.problems import FieldError, Problem, ProblemError, ProblemType, invalid_field, invalid_fields
from contract.request import GenerationRequest, Sampling, TextPrompt
from contract.result import FinishReason, TextResult, Timing, Usage

__all__ = [
    "BODY_BYTES",
    "BODY_SECONDS",
    "INSTANCES",
    "MAX_TOKENS",
    "PROMPT_CHARS",
    "STOP_CHARS",
    "STOP_SEQUENCES",
    "ErrorEvent",
    "Event",
    "FieldError",
    "FinishReason",
    "GenerationRequest",
    "Problem",
    "ProblemError",
    "ProblemType",
    "ResultEvent",
    "Sampling",
    "StatusEvent",
    "TextPrompt",
    "TextResult",
    "Timing",
    "TokenEvent",
    "Usage",
    "invalid_field",
    "invalid_fields",
]
