"""`GET /generations/{id}/images/{number}`: one picture of a completed job as its file, for its caller or for whoever
has its signed address."""

from __future__ import annotations

import re
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from contract import ENDS, PictureResult, ProblemError, problems
from web.api.picture_addresses import PictureAddresses
from web.callers.caller import caller_of
from web.callers.signed_address import SIGNATURE
from web.http.accept import FILE, heaviest
from web.http.entity_tag import unless_known
from web.http.parted_response import HeldResponse
from web.http.responses import picture_file
from web.jobs.record import JobRecord
from web.jobs.service import JobService

_NUMBER = re.compile("0|[1-9][0-9]?")


class PictureFileEndpoint:
    """See the module."""

    def __init__(self, jobs: JobService, addresses: PictureAddresses) -> None:
        self._jobs = jobs
        self._addresses = addresses

    async def serve(self, http_request: Request) -> Response:
        job, number = http_request.path_params["id"], http_request.path_params["number"]
        if SIGNATURE in http_request.query_params:
            left = await self._addresses.check(job, number, http_request.query_params)
            record = await self._jobs.find(job)
            # Pages of any site may show it, those that isolate themselves, too: the address is all that it takes.
            kept = {
                "Cache-Control": f"private, max-age={left}, immutable",
                "Cross-Origin-Resource-Policy": "cross-origin",
            }
        else:
            record = await self._jobs.find(job, caller_of(http_request.scope))
            # Asked for again each time, as the next one to use this browser may be another caller.
            kept = {"Cache-Control": "private, no-cache", "Cross-Origin-Resource-Policy": "same-origin"}
        if record.kind == "text":
            raise ProblemError(problems.NOT_FOUND, "This generation is a text; it has no pictures.")
        if not _NUMBER.fullmatch(number):
            raise ProblemError(problems.NOT_FOUND, "Pictures have numbers, the first one is 0.")
        if record.state not in ENDS:
            detail = f"This generation is {record.state}; it has its pictures once it is completed."
            raise ProblemError(problems.NOT_FOUND, detail, retry_after=await self._jobs.retry_after(record))
        make = partial(self._file, http_request, record, int(number), kept)
        return HeldResponse(self._jobs.results.held(record), make)

    async def _file(self, http_request: Request, record: JobRecord, number: int, headers: dict[str, str]) -> Response:
        result = await self._jobs.results.result(record)
        assert isinstance(result, PictureResult)
        if number >= len(result.images):
            detail = f"This generation has {len(result.images)} of them, and the first one is number 0."
            raise ProblemError(problems.NOT_FOUND, detail)
        response = picture_file(result, number)
        media_type = result.images[number].media_type
        # A file that is not what it seems to be does nothing where it is opened by itself.
        response.headers.update(headers | {"Content-Security-Policy": "default-src 'none'; sandbox", "Vary": "Accept"})
        response.headers["Content-Type"] = heaviest(http_request.headers, [media_type, FILE]) or media_type
        return unless_known(http_request.headers, response)
