"""`GET /status`: whether the models are awake; `POST /warm`: wakes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ModelChoice, ProblemError, Statuses, problems
from web.api.model_choice import named_model
from web.readiness.probe import ReadinessProbe
from wire.body import json_body

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

WARM_SECONDS = 1.0
"""Longest that the answer waits for something to be seen of the model."""

_UNCACHED = {"Cache-Control": "no-store"}


class StatusEndpoints:
    """The endpoints."""

    def __init__(self, settings: Settings, wakers: Mapping[str, ReadinessProbe]) -> None:
        self._settings = settings
        self._wakers = wakers

    async def show(self, _request: Request) -> Response:
        """From what is known: nobody is asked, and nobody is woken."""
        document = Statuses(models=[waker.readiness.status for waker in self._wakers.values()])
        return JSONResponse(document.model_dump(exclude_none=True), headers=_UNCACHED)

    async def wake(self, request: Request) -> Response:
        """200 where it is ready, or 202: it is going to be. However many ask, one question goes to the model server,
        which is asked even where the model is taken to be ready: it may have fallen asleep since it was seen."""
        choice = await json_body(request, ModelChoice) if await request.body() else ModelChoice()
        model = named_model(self._settings.models, choice.model, choice.kind)
        waker = self._wakers[model]
        if waker.url is None:
            detail = f"Where {model} is served is not known here: only a request wakes it."
            raise ProblemError(problems.NOT_IMPLEMENTED, detail)
        readiness = waker.readiness
        if not readiness.answering:
            waker.start()
            await waker.changed(WARM_SECONDS)
        status = readiness.status
        headers = dict(_UNCACHED)
        if status.state != "ready":
            headers["Retry-After"] = str(readiness.retry_after)
        return JSONResponse(status.model_dump(exclude_none=True), 200 if status.state == "ready" else 202, headers)
