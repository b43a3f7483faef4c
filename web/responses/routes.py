"""The routes below `/v1/responses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contract import ProblemError, problems
from web.responses.creation import ResponseCreation
from web.responses.endpoints import ResponseEndpoints
from web.responses.kept_responses import KeptResponses

if TYPE_CHECKING:  # see web.rest.upstream
    from web.api.generations import Generations
    from web.jobs.service import JobService
    from web.readiness.model_readiness import Readiness
    from web.settings import Settings


def response_routes(
    settings: Settings, jobs: JobService, generations: Generations, readiness: Mapping[str, Readiness]
) -> list[Route]:
    """See the module."""
    kept = KeptResponses(settings, jobs)
    endpoints = ResponseEndpoints(settings, jobs, kept, readiness)
    return [
        Route("/v1/responses", ResponseCreation(settings, jobs, kept, generations, readiness), methods=["POST"]),
        *(Route(f"/v1/responses/{name}", _not_offered, methods=["POST"]) for name in ("compact", "input_tokens")),
        Route("/v1/responses/{id}", endpoints.serve, methods=["GET", "DELETE"]),
        Route("/v1/responses/{id}/cancel", endpoints.cancel, methods=["POST"]),
        Route("/v1/responses/{id}/input_items", endpoints.input_items, methods=["GET"]),
    ]


async def _not_offered(http_request: Request) -> Response:
    """What would else be taken for a response of that id, and be told its methods."""
    raise ProblemError(problems.NOT_FOUND, f"{http_request.url.path} is not offered here.")
