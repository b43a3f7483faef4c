"""Making a result of the events that a model server streams."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic

from contract import LiveEvent, PictureResultEvent, ResultEvent
from web.client.call import Event
from web.rest.rest_request import RestRequest


class ResultBuilder(ABC, Generic[Event]):
    """Collects the events of one stream. `url` is the model server's, for the log."""

    def __init__(self, url: str, rest_request: RestRequest) -> None:
        self._url = url
        self._request = rest_request.request
        self._model = rest_request.model
        self._id = rest_request.id
        self._arrived = rest_request.arrived
        self._queue_s: float | None = None
        self.fingerprint: str | None = None
        """What has decided this answer beside the request, where its server says so."""

    @abstractmethod
    def add(self, event: Event) -> Iterable[LiveEvent]:
        """The live events that the client gets for it, often none; a BAD_UPSTREAM problem when it cannot be right."""

    def again(self) -> None:
        """Another answer to the same request begins: of the last one counts only when its first token came."""
        self._queue_s = self.fingerprint = None

    @abstractmethod
    def result(self) -> ResultEvent | PictureResultEvent:
        """The whole result; a BAD_UPSTREAM problem if the stream has ended without making one, as of a server that is
        gone where it was cut off."""

    @property
    def _rounded_queue_s(self) -> float | None:
        return None if self._queue_s is None else round(self._queue_s, 4)

    def _elapsed(self) -> float:
        """Seconds since the request arrived."""
        return round(time.perf_counter() - self._arrived, 4)
