"""Responses as they are kept, and the conversations that go on from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from contract import ENDS, FieldError, ProblemError, TextResult, invalid_field, problems
from contract.openai.responses.documents import PREFIX, Document, ResponseDocuments
from contract.openai.responses.items import Item, ItemReference, KeptItem
from contract.openai.responses.kept import KeptResponse
from contract.openai.responses.request import ResponsesRequest

if TYPE_CHECKING:  # see web.rest.upstream
    from web.jobs.record import JobRecord
    from web.jobs.service import JobService
    from web.settings import Settings

_ITEM: TypeAdapter[Item] = TypeAdapter(KeptItem)

_ITEM_ID = re.compile(r"(?:msg|rs|fc)_([0-9a-f]{32})(?:_[0-9]{1,4})?")


def documents_of(record: JobRecord) -> ResponseDocuments:
    """The documents of a job that is a response."""
    kept = KeptResponse.of_any_version(record.response or "")
    return ResponseDocuments(record.id, record.created, record.model, kept)


class KeptResponses:
    """See the module."""

    def __init__(self, settings: Settings, jobs: JobService) -> None:
        self._jobs = jobs
        seconds = f"{settings.response_seconds:g} s"
        self._kept_for = f"one is forgotten {seconds} after its end, and not kept at all where store was false."
        self._most_bytes = settings.body_bytes or settings.limits.body_bytes

    async def find(self, response: str, caller: str) -> JobRecord:
        """The job of a response. NOT_FOUND where it is unknown, forgotten, not stored, or another caller's."""
        record = await self._response(response, caller)
        if record is None:
            raise ProblemError(problems.NOT_FOUND, f"There is no response of this id; {self._kept_for}")
        return record

    async def document(self, record: JobRecord) -> Document:
        """The response as it is now, with what has become of its webhook."""
        document = await self._document(record)
        if record.webhook is not None:
            document["webhook"] = record.webhook.model_dump(mode="json", exclude_none=True)
        return document

    async def _document(self, record: JobRecord) -> Document:
        documents = documents_of(record)
        if record.state not in ENDS:
            waits = record.state == "queued" and documents.kept.in_background
            return documents.begun("queued" if waits else "in_progress")
        ended = record.ended or 0.0
        if (problem := record.problem) is not None:
            return documents.failed(problem, ended, cancelled=record.end == "cancelled")
        return documents.ended(await self._result(record), ended)

    async def conversation(self, body: ResponsesRequest, caller: str) -> list[Item]:
        """What the model is given: all of the response that the body goes on from, and its own items, with those that
        it refers to. Problems name the field."""
        items = await self._previous(body.previous_response_id, caller) if body.previous_response_id else []
        outputs: dict[str, list[Document]] = {}
        for place, item in enumerate(body.input):
            if isinstance(item, ItemReference):
                items.append(await self._referred(item.id, f"input.{place}.id", caller, outputs))
            else:
                items.append(item)
        return items

    def kept(self, body: ResponsesRequest, items: Sequence[Item]) -> str:
        """What is kept of a new response, as JSON. INVALID_FIELD where that is too long."""
        kept = KeptResponse.of(body, items if body.is_stored else []).model_dump_json(exclude_none=True)
        if len(kept.encode()) > self._most_bytes:
            field = "input" if body.previous_response_id is None else "previous_response_id"
            raise invalid_field(field, f"the conversation may have at most {self._most_bytes} bytes as JSON")
        return kept

    async def _response(self, response: str, caller: str) -> JobRecord | None:
        return await self._job(response.removeprefix(PREFIX), caller) if response.startswith(PREFIX) else None

    async def _job(self, job: str, caller: str) -> JobRecord | None:
        try:
            record = await self._jobs.find(job, caller)
        except ProblemError as error:
            if error.kind is not problems.NOT_FOUND:
                raise
            return None
        stored = record.response is not None and documents_of(record).kept.is_stored
        return record if stored else None

    async def _previous(self, response: str, caller: str) -> list[Item]:
        field = "previous_response_id"
        record = await self._response(response, caller)
        if record is None:
            detail = f"Previous response with id '{response}' not found; {self._kept_for}"
            raise ProblemError(
                problems.PREVIOUS_RESPONSE_NOT_FOUND, detail, errors=[FieldError(field=field, detail="is not there")]
            )
        if record.state != "completed":
            raise invalid_field(field, f"that response is {record.state}: there is no answer to go on from")
        return [*documents_of(record).kept.items, *(_item(one, field) for one in await self._output(record))]

    async def _referred(self, item: str, field: str, caller: str, outputs: dict[str, list[Document]]) -> Item:
        """An item of the output of an earlier response; `outputs` are those that were read already."""
        if named := _ITEM_ID.fullmatch(item):
            job = named[1]
            if job not in outputs:
                record = await self._job(job, caller)
                ready = record is not None and record.state == "completed"
                outputs[job] = await self._output(record) if record is not None and ready else []
            for known in outputs[job]:
                if known["id"] == item:
                    return _item(known, field)
        raise invalid_field(
            field, "there is no item of this id in a response that is kept here, or it is a call that was cut"
        )

    async def _output(self, record: JobRecord) -> list[Document]:
        """What is gone on from: not calls that were cut, whose arguments are no JSON, and no empty message."""
        documents = documents_of(record).output(await self._result(record))
        return [
            document
            for document in documents
            if (document["type"], document["status"]) != ("function_call", "incomplete")
            and (document["type"] != "message" or document["content"][0]["text"])
        ]

    async def _result(self, record: JobRecord) -> TextResult:
        result = await self._jobs.results.result(record)
        assert isinstance(result, TextResult)
        return result


def _item(document: Document, field: str) -> Item:
    """An item of an answer. INVALID_FIELD where it is a call that the model server has not held to JSON."""
    try:
        return _ITEM.validate_python(document)
    except ValidationError:
        detail = "that answer has a call whose arguments are no JSON; go on without it: send the conversation as input"
        raise invalid_field(field, detail) from None
