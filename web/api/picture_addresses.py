"""The addresses of a job's pictures: what a client is told in the place of their files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.datastructures import QueryParams

from contract import LinkedPicture, PictureResult
from contract.cloudevents import written
from web.callers.signed_address import AddressSigner
from web.http.parted_response import without_files
from web.jobs.record import JobRecord
from web.jobs.service import JobService

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings


class PictureAddresses:
    """See the module. `base` is what an address begins with: see web.http.public_address."""

    def __init__(self, settings: Settings, jobs: JobService) -> None:
        self._settings = settings
        self._jobs = jobs
        self._signer = AddressSigner(jobs.secret)

    async def address(self, record: JobRecord, number: int, base: str) -> tuple[str, int]:
        """Where everybody may read a picture of a completed job, the first of which is 0, and until when, in seconds
        since 1970: for PICTURE_URL_SECONDS, and no longer than the job is kept."""
        assert record.ended is not None
        now = await self._jobs.now()
        expires = min(now + self._settings.picture_url_seconds, record.ended + self._settings.job_keep_seconds)
        return base + await self._signer.signed(_path(record.id, str(number)), int(expires)), int(expires)

    async def check(self, job: str, number: str, query: QueryParams) -> int:
        """For how many more seconds a signed address may be read; FORBIDDEN where it may not."""
        now = await self._jobs.now()
        return max(0, int(await self._signer.check(_path(job, number), query, now) - now))

    async def result(self, record: JobRecord, result: PictureResult, base: str) -> str:
        """The JSON of a result, with addresses in the place of files."""
        images = []
        for number, picture in enumerate(result.images):
            url, expires = await self.address(record, number, base)
            members = picture.model_dump(exclude={"data"})
            images.append(LinkedPicture(url=url, expires_at=written(expires), **members).model_dump())
        return json.dumps({**without_files(result).model_dump(), "images": images}, ensure_ascii=False)

    async def outcome(self, record: JobRecord, base: str) -> str:
        """As `Results.document`, with addresses in the place of files."""
        if record.kind != "image" or record.state != "completed":
            return await self._jobs.results.document(record)
        result = await self._jobs.results.result(record)
        assert isinstance(result, PictureResult)
        return await self.result(record, result, base)


def _path(job: str, number: str) -> str:
    return f"/generations/{job}/images/{number}"
