"""The reply events of a predictor: completed or failed, and where a result goes that is too large for an event."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr

from contract import problems
from contract.cloudevents import CARRIED, CAUSATION, COMPLETED, DATAREF, EVENT_BYTES, FAILED, CloudEvent, now
from contract.problems import Problem, ProblemError
from contract.result import PictureResult, TextResult
from wire.cloudevents import signed, write_event

if TYPE_CHECKING:  # fsspec is imported only where artifacts are configured
    from wire.artifacts import Artifacts


def subject_of(request: CloudEvent) -> str:
    """The subject of a request and of all events about it."""
    return request.subject or request.id


def event_about(request: CloudEvent, source: str, event_id: str, event_type: str, data: BaseModel) -> CloudEvent:
    """An event about a request: with the request's subject, its trace, and its id as the cause."""
    carried = {name: request.extensions[name] for name in CARRIED if name in request.extensions}
    return CloudEvent(
        id=event_id,
        source=source,
        type=event_type,
        subject=subject_of(request),
        time=now(),
        extensions=carried | {CAUSATION: request.id},
    ).with_data(data)


class ReplyBuilder:
    """Builds replies with this `source`. A result that makes an event of more than `event_bytes` becomes an artifact,
    and the reply refers to it. With a `token` replies are signed."""

    def __init__(
        self,
        source: str,
        event_bytes: int = EVENT_BYTES,
        artifacts: Artifacts | None = None,
        token: SecretStr | None = None,
    ) -> None:
        self._token = token
        self._source = source
        self._event_bytes = event_bytes
        self._artifacts = artifacts

    async def completed(self, request: CloudEvent, result: TextResult | PictureResult) -> CloudEvent:
        """The reply with a result. Raises a ProblemError: RESULT_TOO_LARGE without artifacts, UNAVAILABLE when the
        artifact cannot be written."""
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
        return self._signed(
            reply.model_copy(update={"data": None, "extensions": reply.extensions | {DATAREF: address}})
        )

    def failed(self, request: CloudEvent, problem: Problem) -> CloudEvent:
        """The reply with a problem that no retry helps against."""
        return self._reply(request, FAILED, problem)

    def _reply(self, request: CloudEvent, event_type: str, data: BaseModel) -> CloudEvent:
        """Its id is a function of the request, so that brokers and readers recognise a duplicate."""
        identity = json.dumps([request.source, request.id, request.type])
        event_id = str(uuid.uuid5(uuid.NAMESPACE_URL, identity))
        return self._signed(event_about(request, self._source, event_id, event_type, data))

    def _signed(self, reply: CloudEvent) -> CloudEvent:
        return signed(reply, self._token.get_secret_value()) if self._token else reply
