"""OpenAI's list of models: the one that is served."""

from __future__ import annotations

import time

from fastapi import APIRouter

from predictor.protocols import error_documents
from predictor.protocols.generation_model import GenerationModel


def models_router(model: GenerationModel) -> APIRouter:
    """The routes of any model."""
    router = APIRouter(prefix=error_documents.OPENAI_PREFIX)
    card = {"id": model.name, "object": "model", "created": int(time.time()), "owned_by": "shangcai"}

    @router.get("/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [card]}

    @router.get("/models/{name:path}")
    async def model_card(name: str) -> dict[str, object]:
        model.check_name(name)
        return card

    return router
