"""A typed client of `POST /generate`: docs/clients.md says how it is used.

What is refused is a ProblemError, whose `problem` has the type, the status, the fields' errors and `retry_after`; of
the type about:blank is the answer of another server. A connection that fails, where asking again could double something
or has not helped, is an httpx2.TransportError; a `timeout` that is over is a TimeoutError.
"""

from contract import (
    LiveEvent,
    PreviewEvent,
    Problem,
    ProblemError,
    ProgressEvent,
    ReasoningEvent,
    StatusEvent,
    TokenEvent,
    ToolCallEvent,
)
from shangcai.async_client import AsyncClient, AsyncJob
from shangcai.client import Client, Job
from shangcai.results import (
    DescribedModel,
    DescribedModels,
    Event,
    JobStatus,
    Picture,
    PictureResult,
    Result,
    TextResult,
)

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "DescribedModel",
    "DescribedModels",
    "Event",
    "Job",
    "JobStatus",
    "LiveEvent",
    "Picture",
    "PictureResult",
    "PreviewEvent",
    "Problem",
    "ProblemError",
    "ProgressEvent",
    "ReasoningEvent",
    "Result",
    "StatusEvent",
    "TextResult",
    "TokenEvent",
    "ToolCallEvent",
]
