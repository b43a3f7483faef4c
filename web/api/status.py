"""`GET /status`: whether the models are awake; `POST /warm`: wakes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ModelChoice, ProblemError, Statuses, problems
from web.api.model_choice import named_model
from web.http.origin import check_origin
from web.readiness.probe import ReadinessProbe
from wire.body import json_body

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

WARM_SECONDS = 1.0
"""Longest that `POST /warm` waits for a first sign of the model before it answers."""

_UNCACHED = {"Cache-Control": "no-store"}


class StatusEndpoints:
    """See the module."""

    def __init__(self, settings: Settings, probes: Mapping[str, ReadinessProbe]) -> None:
        self._settings = settings
        self._probes = probes

    async def show(self, _http_request: Request) -> Response:
        """What is known already: no model server is asked, and no model is woken."""
        document = Statuses(models=[probe.readiness.status for probe in self._probes.values()])
        return JSONResponse(document.model_dump(exclude_none=True), headers=_UNCACHED)

    async def warm(self, http_request: Request) -> Response:
        """200 where the model is ready, 202 where it is waking or silent.

        One probe goes to the model server, however many clients ask; also where the model counts as ready, because it
        may have fallen asleep since it last answered.
        """
        check_origin(http_request.headers, self._settings.cors_origins)  # without a body there is no preflight
        choice = await json_body(http_request, ModelChoice) if await http_request.body() else ModelChoice()
        model = named_model(self._settings.models, choice.model, choice.kind)
        probe = self._probes[model]
        if probe.url is None:
            detail = f"Where {model} is served is not known here: only a request wakes it."
            raise ProblemError(problems.NOT_IMPLEMENTED, detail)
        readiness = probe.readiness
        if not readiness.answering:
            probe.start()
            await probe.changed(WARM_SECONDS)
        status = readiness.status
        headers = dict(_UNCACHED)
        if status.state != "ready":
            headers["Retry-After"] = str(readiness.retry_after)
        return JSONResponse(status.model_dump(exclude_none=True), 200 if status.state == "ready" else 202, headers)
