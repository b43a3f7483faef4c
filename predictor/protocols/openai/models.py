"""OpenAI's list of models: the one that is served, with what it says of itself."""

from __future__ import annotations

import time

from fastapi import APIRouter

from predictor.protocols import error_documents
from predictor.protocols.generation_model import GenerationModel


def models_router(model: GenerationModel) -> APIRouter:
    """The routes of any model."""
    router = APIRouter(prefix=error_documents.OPENAI_PREFIX)
    created = int(time.time())

    def card() -> dict[str, object]:
        known = {"id": model.name, "object": "model", "created": created, "owned_by": "shangcai", "kind": model.kind}
        return known | model.description.model_dump(exclude_none=True)

    @router.get("/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [card()]}

    @router.get("/models/{name:path}")
    async def model_card(name: str) -> dict[str, object]:
        model.check_name(name)
        return card()

    return router
