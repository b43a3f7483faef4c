"""`GET /v1/models`: what is served, awake or not."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.models.description import DescribedModel
from web.api.model_choice import named_model
from web.api.models import ModelList


class ModelEndpoints:
    """See the module. `created` is when this replica began to serve a model: nobody knows more here."""

    def __init__(self, models: ModelList) -> None:
        self._models = models
        self._created = int(time.time())

    async def list(self, _http_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card(model) for model in self._models]})

    async def show(self, http_request: Request) -> Response:
        name = named_model(self._models.models, http_request.path_params["model"], None)
        return JSONResponse(self._card(self._models.entry(name)))

    def _card(self, model: DescribedModel) -> dict[str, Any]:
        known = model.model_dump(exclude_none=True, exclude={"name"})
        return {"id": model.name, "object": "model", "created": self._created, "owned_by": "shangcai", **known}
