"""`GET /healthz`: whether this process should live on."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ProblemError, problems
from web.jobs.background_loops import BackgroundLoops


class HealthEndpoint:
    """Asks nobody: an outage of the store or of a model is no reason to start this process anew."""

    def __init__(self, background: BackgroundLoops) -> None:
        self._background = background

    async def serve(self, _http_request: Request) -> Response:
        """STALLED where a loop in the background does not go round any more."""
        if stalled := self._background.stalled:
            details = [f"{loop.name} has not gone round for {loop.seconds:.0f} s" for loop in stalled]
            raise ProblemError(problems.STALLED, f"{'; '.join(details)}.")
        return JSONResponse({"status": "ok"})
