"""The routes below `/v1/responses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.routing import Route

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
        Route("/v1/responses/{id}", endpoints.serve, methods=["GET", "DELETE"]),
        Route("/v1/responses/{id}/cancel", endpoints.cancel, methods=["POST"]),
        Route("/v1/responses/{id}/input_items", endpoints.input_items, methods=["GET"]),
    ]
