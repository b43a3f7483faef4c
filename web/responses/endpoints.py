"""`/v1/responses/{id}` and what is below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ENDS, invalid_field
from contract.openai.responses.kept import item_document
from web.callers.caller import caller_of
from web.http.origin import check_origin
from web.http.page_query import DEFAULT_LIMIT, MOST_LIMIT
from web.responses.kept_responses import KeptResponses, documents_of
from web.responses.response_frames import last_number, response_frames
from wire.sse import EventStream

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.jobs.record import JobRecord
    from web.jobs.service import JobService
    from web.readiness.model_readiness import Readiness
    from web.settings import Settings

_UNCACHED = {"Cache-Control": "no-store"}


class ResponseEndpoints:
    """See the module."""

    def __init__(
        self, settings: Settings, jobs: JobService, kept: KeptResponses, readiness: Mapping[str, Readiness]
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._kept = kept
        self._readiness = readiness

    async def serve(self, http_request: Request) -> Response:
        record = await self._find(http_request)
        if http_request.method == "DELETE":
            if record.state not in ENDS:
                record = await self._jobs.cancel(record.id)
            await self._jobs.delete(record)
            id = http_request.path_params["id"]
            return JSONResponse({"id": id, "object": "response", "deleted": True}, headers=_UNCACHED)
        after = _number(http_request, "starting_after", -1)
        if not _flag(http_request, "stream"):
            return JSONResponse(await self._kept.document(record), headers=_UNCACHED)
        last = await last_number(self._jobs, record) if after >= 0 and record.state in ENDS else None
        if last is not None and after > last:
            raise invalid_field("starting_after", f"the last event of this response has the number {last}")
        frames = response_frames(self._jobs, self._readiness.get(record.model), record, after, resumable=True)
        return EventStream(frames, heartbeat_seconds=self._settings.heartbeat_seconds, resumable=True)

    async def cancel(self, http_request: Request) -> Response:
        check_origin(http_request.headers, self._settings.cors_origins)  # without a body there is no preflight
        record = await self._find(http_request)
        if not documents_of(record).kept.in_background:
            raise invalid_field("background", "only a response in the background can be cancelled")
        if record.state not in ENDS:
            record = await self._jobs.cancel(record.id)
        return JSONResponse(await self._kept.document(record), headers=_UNCACHED)

    async def input_items(self, http_request: Request) -> Response:
        """What the model was given, those of the responses before it included."""
        record = await self._find(http_request)
        query = http_request.query_params
        items = [
            item_document(item, f"item_{record.id}_{place}")
            for place, item in enumerate(documents_of(record).kept.items)
        ]
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid_field("order", "must be asc or desc")
        if order == "desc":
            items.reverse()
        if (after := query.get("after")) is not None:
            places = [place for place, item in enumerate(items) if item["id"] == after]
            if not places:
                raise invalid_field("after", "must be the id of one of the items")
            items = items[places[-1] + 1 :]
        limit = _number(http_request, "limit", DEFAULT_LIMIT)
        if not 1 <= limit <= MOST_LIMIT:
            raise invalid_field("limit", f"must be 1 to {MOST_LIMIT}")
        page = items[:limit]
        ids = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
        return JSONResponse({"object": "list", "data": page, **ids, "has_more": len(items) > limit}, headers=_UNCACHED)

    async def _find(self, http_request: Request) -> JobRecord:
        return await self._kept.find(http_request.path_params["id"], caller_of(http_request.scope))


def _flag(http_request: Request, name: str) -> bool:
    given = http_request.query_params.get(name, "false").lower()
    if given not in ("true", "false"):
        raise invalid_field(name, "must be true or false")
    return given == "true"


def _number(http_request: Request, name: str, default: int) -> int:
    given = http_request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) <= 9):
        raise invalid_field(name, "must be a whole number")
    return int(given)
