"""`GET /generations`: a caller's own jobs, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ProblemError, problems
from web.callers.caller import DEFAULT_CALLER, caller_of
from web.http.page_query import page_query

if TYPE_CHECKING:  # see web.rest.upstream
    from web.jobs.service import JobService


class JobListEndpoint:
    """See the module."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    async def serve(self, http_request: Request) -> Response:
        """Where callers are not told apart nothing is listed: that somebody's job has an id which nobody else knows is
        all that keeps it."""
        caller = caller_of(http_request.scope)
        if caller == DEFAULT_CALLER:
            detail = "Callers are not told apart here, so nobody's generations are listed."
            raise ProblemError(problems.FORBIDDEN, detail)
        limit, after = page_query(http_request.query_params)
        page = await self._jobs.jobs_of(caller, limit, after)
        return JSONResponse(page.model_dump(mode="json", exclude_none=True), headers={"Cache-Control": "no-store"})
