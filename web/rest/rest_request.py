"""One request on its way to a predictor over REST."""

from __future__ import annotations

from dataclasses import dataclass

from contract import GenerationRequest
from wire.telemetry.generation import GenerationTelemetry


@dataclass(frozen=True)
class RestRequest:
    """What is to be generated, by which model, and within which time."""

    request: GenerationRequest
    model: str
    id: str
    """Of the result."""
    arrived: float
    """When the client's request came, on the clock of `time.perf_counter`."""
    seconds: float
    """The time that is left."""
    headers: dict[str, str]
    """Passed on to the predictor: the request's id and trace."""
    caller: str
    """Who asks."""
    live: bool
    """Whether the client sees events before the end."""
    telemetry: GenerationTelemetry
    own_limit: bool = False
    """Whether `seconds` come from a limit of the client that is shorter than web's."""
    of_job: bool = False
    """It waits for a model that is waking even where that is expected to take longer than `seconds`, and is tried again
    by the worker of jobs."""
