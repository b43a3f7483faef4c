"""OpenAI's routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from web.api.generations import Generations
from web.api.jobs import JobEndpoints
from web.api.models import ModelList
from web.openai.models import ModelEndpoints
from web.openai.pictures import edits_endpoint, generations_endpoint
from web.openai.texts import chat_endpoint, completions_endpoint

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

EDITS = "/v1/images/edits"
"""Whose bodies have pictures in them."""


def openai_routes(
    settings: Settings, model_list: ModelList, generations: Generations, jobs: JobEndpoints
) -> list[Route]:
    """See the module."""
    models = ModelEndpoints(model_list)
    return [
        Route("/v1/models", models.list, methods=["GET"]),
        Route("/v1/models/{model:path}", models.show, methods=["GET"]),
        Route("/v1/chat/completions", chat_endpoint(settings, generations), methods=["POST"]),
        Route("/v1/completions", completions_endpoint(settings, generations), methods=["POST"]),
        Route("/v1/images/generations", generations_endpoint(settings, generations, jobs), methods=["POST"]),
        Route(EDITS, edits_endpoint(settings, generations, jobs), methods=["POST"]),
    ]
