"""The one definition of what Shangcai serves: requests, results, events, problems and their limits.

No I/O and no dependency but pydantic, so that the light web container and the heavy predictor can share it.
"""

from contract.events import (
    ErrorEvent,
    Event,
    PictureResultEvent,
    PreviewEvent,
    ProgressEvent,
    ResultEvent,
    StatusEvent,
    TokenEvent,
)
from contract.job import ENDS, Job, JobState
from contract.limits import (
    BODY_BYTES,
    BODY_SECONDS,
    GUIDANCE,
    INSTANCES,
    MAX_TOKENS,
    PICTURE_SIDE,
    PICTURES,
    PREVIEWS,
    PROMPT_CHARS,
    STEPS,
    STOP_CHARS,
    STOP_SEQUENCES,
)
from contract.problems import FieldError, Problem, ProblemError, ProblemType, invalid_field, invalid_fields
from contract.request import (
    PICTURE_FIELDS,
    TEXT_FIELDS,
    GenerationRequest,
    Kind,
    Painting,
    PicturePrompt,
    Sampling,
    TextPrompt,
)
from contract.result import FinishReason, Picture, PictureResult, PictureTiming, TextResult, Timing, Usage

__all__ = [
    "BODY_BYTES",
    "BODY_SECONDS",
    "ENDS",
    "GUIDANCE",
    "INSTANCES",
    "MAX_TOKENS",
    "PICTURES",
    "PICTURE_FIELDS",
    "PICTURE_SIDE",
    "PREVIEWS",
    "PROMPT_CHARS",
    "STEPS",
    "STOP_CHARS",
    "STOP_SEQUENCES",
    "TEXT_FIELDS",
    "ErrorEvent",
    "Event",
    "FieldError",
    "FinishReason",
    "GenerationRequest",
    "Job",
    "JobState",
    "Kind",
    "Painting",
    "Picture",
    "PicturePrompt",
    "PictureResult",
    "PictureResultEvent",
    "PictureTiming",
    "PreviewEvent",
    "Problem",
    "ProblemError",
    "ProblemType",
    "ProgressEvent",
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
