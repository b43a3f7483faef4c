"""The events that a predictor writes: what each says of the request that it is about, and where large results go."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING

from pydantic import BaseModel

from contract import problems
from contract.cloudevents import CARRIED, CAUSATION, COMPLETED, DATAREF, EVENT_BYTES, FAILED, CloudEvent, now
from contract.problems import Problem, ProblemError
from contract.result import PictureResult, TextResult
from wire.cloudevents import write_event

if TYPE_CHECKING:  # only few deployments need it
    from wire.artifacts import Artifacts


def subject_of(request: CloudEvent) -> str:
    """What a request and everything that is said about it have in common."""
    return request.subject or request.id


def about(request: CloudEvent, source: str, event_id: str, kind: str, data: BaseModel) -> CloudEvent:
    """An event of that type about a request."""
    carried = {name: request.extensions[name] for name in CARRIED if name in request.extensions}
    return CloudEvent(
        id=event_id,
        source=source,
        type=kind,
        subject=subject_of(request),
        time=now(),
        extensions=carried | {CAUSATION: request.id},
    ).with_data(data)


class ReplyBuilder:
    """Writes the replies of `source`. A result that makes an event of more than `event_bytes` goes to the artifacts."""

    def __init__(self, source: str, event_bytes: int = EVENT_BYTES, artifacts: Artifacts | None = None) -> None:
        self._source = source
        self._event_bytes = event_bytes
        self._artifacts = artifacts

    async def completed(self, request: CloudEvent, result: TextResult | PictureResult) -> CloudEvent:
        """A RESULT_TOO_LARGE problem where there is no place for it, and UNAVAILABLE where that cannot be reached."""
        reply = self._reply(request, COMPLETED, result)
        _, document = write_event(reply, "structured")
        if len(document) <= self._event_bytes or reply.data is None:
            return reply
        if self._artifacts is None:
            raise ProblemError(
                problems.RESULT_TOO_LARGE,
                f"The result makes an event of {len(document)} bytes; {self._event_bytes} are allowed. ARTIFACTS_URL "
                "gives larger ones a place, --event-bytes allows them.",
            )
        name = hashlib.sha256(json.dumps(reply.key).encode()).hexdigest()
        address = await self._artifacts.put(f"{name}.json", reply.data)
        return reply.model_copy(update={"data": None, "extensions": reply.extensions | {DATAREF: address}})

    def failed(self, request: CloudEvent, problem: Problem) -> CloudEvent:
        return self._reply(request, FAILED, problem)

    def _reply(self, request: CloudEvent, kind: str, data: BaseModel) -> CloudEvent:
        """Its id is always the same, so that brokers and readers know a second one for a copy."""
        named = json.dumps([request.source, request.id, request.type])
        return about(request, self._source, str(uuid.uuid5(uuid.NAMESPACE_URL, named)), kind, data)
