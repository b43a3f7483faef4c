"""Making pictures of their stream."""

from __future__ import annotations

from collections.abc import Iterable

from contract import (
    Picture,
    PictureResultEvent,
    PictureTiming,
    PreviewEvent,
    ProgressEvent,
)
from contract.events import LiveEvent
from web.client.failures import bad_answer, cut_off
from web.rest.picture_stream import Completed, PartialImage, PictureStreamEvent, Progress, Started
from web.rest.rest_request import RestRequest
from web.rest.result_builder import ResultBuilder


class PictureResultBuilder(ResultBuilder[PictureStreamEvent]):
    """See ResultBuilder. Pictures may finish in any order."""

    def __init__(self, url: str, rest_request: RestRequest) -> None:
        super().__init__(url, rest_request)
        self._count = self._request.n or 1
        self._pictures: dict[int, Picture] = {}
        self._steps: int | None = None
        self._understood: list[str] | None = None
        self._total_s = 0.0

    def again(self) -> None:
        super().again()
        self._pictures = {}

    def add(self, event: PictureStreamEvent) -> Iterable[LiveEvent]:
        self.fingerprint = event.system_fingerprint or self.fingerprint
        match event:
            case Started():
                if event.queue_s is not None:  # pictures may start one by one; the longest wait counts
                    self._queue_s = max(self._queue_s or 0, event.queue_s)
            case Progress():
                return (ProgressEvent(step=event.step, of=event.of, eta_s=event.eta_s),)
            case PartialImage():
                width, height = map(int, event.size.split("x")) if event.size else (None, None)
                return (
                    PreviewEvent(
                        image=self._index(event),
                        step=event.step,
                        data=event.b64_json,
                        media_type=f"image/{event.output_format}",
                        width=width,
                        height=height,
                    ),
                )
            case Completed():
                self._complete(event)
        return ()

    def result(self) -> PictureResultEvent:
        if len(self._pictures) < self._count:
            raise cut_off(self._url, f"it ends with {len(self._pictures)} of {self._count} pictures")
        return PictureResultEvent(
            id=self._id,
            model=self._model,
            images=[self._pictures[index] for index in range(self._count)],
            steps=self._steps,
            understood=self._understood,
            timing=PictureTiming(queue_s=self._rounded_queue_s, total_s=self._total_s),
            system_fingerprint=self.fingerprint,
        )

    def _complete(self, event: Completed) -> None:
        index = self._index(event)
        if index in self._pictures:
            raise bad_answer(self._url, f"picture {index} of it comes twice")
        if self._request.format not in (None, event.output_format):
            raise bad_answer(self._url, f"a picture of it is not {self._request.format}", str(event.output_format))
        width, height = map(int, event.size.split("x"))
        self._pictures[index] = Picture(
            data=event.b64_json,
            media_type=f"image/{event.output_format}",
            seed=self._seed(event),
            width=width,
            height=height,
        )
        self._steps = event.steps
        self._understood = event.understood
        self._total_s = self._elapsed()

    def _index(self, event: PartialImage | Completed) -> int:
        """Runtimes that do not number their pictures send them in order."""
        index = len(self._pictures) if event.image_index is None else event.image_index
        if index >= self._count:
            raise bad_answer(self._url, f"it has more than {self._count} pictures")
        return index

    def _seed(self, event: Completed) -> int | None:
        """The seed in the event; where it has none, the one asked for, which holds for a single picture."""
        return self._request.seed if event.seed is None and self._count == 1 else event.seed
