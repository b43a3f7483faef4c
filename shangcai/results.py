"""What is answered, as types: results, events, jobs, models and problems."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import httpx2
from pydantic import Field, OnErrorOmit, TypeAdapter, ValidationError

import contract
from contract import LiveEvent, PictureResultEvent, Problem, ProblemError, ResultEvent
from contract.fields import Omittable, StrictModel
from contract.models import description
from contract.problems import raised

TextResult = ResultEvent
"""A finished text."""


class Picture(contract.Picture):
    """One picture, in a file format that browsers show."""

    @property
    def content(self) -> bytes:
        """The file."""
        return base64.b64decode(self.data, validate=True)

    def save(self, path: str | Path) -> Path:
        """Write the file to `path`."""
        path = Path(path)
        path.write_bytes(self.content)
        return path


class PictureResult(PictureResultEvent):
    """Finished pictures."""

    images: list[Picture] = Field(min_length=1)  # type: ignore[assignment]  # frozen, so nobody puts others into it


Result = TextResult | PictureResult
Event = LiveEvent | PictureResult
"""What a stream yields; its last one is the result."""

_Result = Annotated[Result, Field(discriminator="kind")]
_RESULT: TypeAdapter[Result] = TypeAdapter(_Result)
EVENTS: dict[str, Any] = {kind.event: kind for kind in get_args(LiveEvent)}
"""By their names, so that what the contract gets is known here, too."""


class _Identified(StrictModel):
    id: str


class JobStatus(contract.Job):
    """How far a job is."""

    result: _Result | None = None


class DescribedModel(description.DescribedModel):
    """A served model, and what is known of it; the rest is None."""

    refuses: Omittable[list[OnErrorOmit[description.Refusable]]] = None
    """Fields of a request of its kind that it does not take. Those that are not known here are left out."""


class DescribedModels(description.DescribedModels):
    """The served models, in their order. Those of a kind that is not known here are left out."""

    models: list[OnErrorOmit[DescribedModel]]  # type: ignore[assignment]  # frozen, so nobody puts others into it


def read_result(document: bytes) -> Result:
    """Of this version of the server or another one, as all that follow."""
    with _documents():
        return _RESULT.validate_json(document, extra="ignore")


def read_job(document: bytes) -> JobStatus:
    with _documents():
        return JobStatus.of_any_version(document)


def read_models(document: bytes) -> DescribedModels:
    with _documents():
        return DescribedModels.of_any_version(document)


def read_job_id(document: bytes) -> str:
    """Of what answers a submission: the job, or already its result."""
    with _documents():
        return _Identified.of_any_version(document).id


@contextmanager
def _documents() -> Iterator[None]:
    """A ProblemError of the type about:blank where what was answered is no document of this service."""
    try:
        yield
    except ValidationError:
        detail = "The answer is no document of this service: it comes from another server, there or on the way."
        raise raised(Problem(type="about:blank", title="Bad Gateway", status=502, detail=detail)) from None


def outcome(job: JobStatus) -> Result:
    """The result of a job that has ended. Raises its problem where it has none."""
    if job.result is None:
        raise raised(job.error) if job.error else ValueError(f"the job {job.id} has not ended")
    return job.result


def read_event(name: str, data: bytes) -> Event | ProblemError | None:
    """An event, or what the generation has failed with; None for an event that is not known here."""
    if name == "error":
        with _documents():
            return raised(Problem.of_any_version(data))
    if name == "result":
        return read_result(data)
    kind = EVENTS.get(name)
    if kind is None:
        return None
    try:
        event: Event = kind.of_any_version(data)
    except ValidationError:  # such as a state that is not known here; clients ignore it
        return None
    return event


def read_problem(response: httpx2.Response) -> ProblemError:
    """Of a refusal whose body has been read; one that is no problem document has the type about:blank (RFC 9457)."""
    try:
        return raised(Problem.of_any_version(response.content))
    except ValidationError:
        status, seconds = response.status_code, response.headers.get("retry-after", "")
        return raised(
            Problem(
                type="about:blank",
                title=response.reason_phrase,
                status=status,
                detail=f"The answer is {status}, and no problem document: it comes from another server on the way.",
                retry_after=int(seconds) if seconds.isascii() and seconds.isdecimal() else None,
            )
        )
