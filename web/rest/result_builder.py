"""A generation while it arrives."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic

from contract import LiveEvent, PictureResultEvent, ResultEvent
from web.client.call import Event


class ResultBuilder(ABC, Generic[Event]):
    """Collects the events of a model server, and knows when they make a result."""

    def __init__(self, url: str, model: str, result_id: str, arrived: float) -> None:
        self._url = url
        self._model = model
        self._id = result_id
        self._arrived = arrived
        self._queue_s: float | None = None

    @abstractmethod
    def add(self, event: Event) -> Iterable[LiveEvent]:
        """What there is to tell the client about it, often nothing."""

    @abstractmethod
    def result(self) -> ResultEvent | PictureResultEvent:
        """The whole, or a BAD_UPSTREAM problem if the stream ended without making it one."""

    @property
    def _waited(self) -> float | None:
        return None if self._queue_s is None else round(self._queue_s, 4)

    def _elapsed(self) -> float:
        return round(time.perf_counter() - self._arrived, 4)
