"""`GET /models`: the served models, and what is known of each. No model is asked, and none is woken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.models.description import DescribedModel, DescribedModels
from web.api.model_choice import named_model
from web.descriptions.descriptions import Descriptions
from web.http.entity_tag import entity_tag, unless_known

if TYPE_CHECKING:  # see web.rest.upstream
    from web.setting_values import ServedModel


class ModelList:
    """The one list of the served models, in their order: what other documents say of them is taken from it."""

    def __init__(self, models: Mapping[str, ServedModel], descriptions: Descriptions) -> None:
        self.models = models
        self._descriptions = descriptions

    @property
    def default(self) -> str:
        """The model of a request that says nothing of it."""
        return named_model(self.models, None, None)

    def entry(self, name: str) -> DescribedModel:
        known = dict(self._descriptions.of(name))
        return DescribedModel.model_construct(name=name, kind=self.models[name].kind, **known)

    def __iter__(self) -> Iterator[DescribedModel]:
        return map(self.entry, self.models)

    async def serve(self, http_request: Request) -> Response:
        document = DescribedModels.model_construct(models=list(self), default_model=self.default)
        response = JSONResponse(document.model_dump(exclude_none=True), headers={"Cache-Control": "no-cache"})
        response.headers["ETag"] = entity_tag(bytes(response.body))
        return unless_known(http_request.headers, response)
