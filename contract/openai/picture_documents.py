"""Pictures as the documents and events that OpenAI's picture routes answer with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from contract.events import PreviewEvent, ProgressEvent
from contract.fields import PictureFormat
from contract.openai.fields import fingerprint_member
from contract.openai.pictures import ImagesRequest
from contract.result import Picture

_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""OpenAI's clients ask for it; a diffusion model counts no tokens."""


class PictureDocuments:
    """The answer to one request: a whole document, or events, whose types begin with `kind`."""

    def __init__(self, body: ImagesRequest, kind: str, model: str, fingerprint: str | None = None) -> None:
        self.fingerprint = fingerprint
        self._kind = kind
        self._model = model
        self._size = body.size or "auto"
        self._format: PictureFormat = body.output_format or "png"
        self._previews: Counter[int] = Counter()  # of each picture

    def whole(
        self,
        pictures: Sequence[Picture],
        *,
        steps: int | None,
        understood: list[str] | None,
        queue_s: float | None,
        urls: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """All pictures in one document, by their `urls` where there are any."""
        files = [{"b64_json": one.data} for one in pictures] if urls is None else [{"url": url} for url in urls]
        data = [{**file, "revised_prompt": None, "seed": one.seed} for file, one in zip(files, pictures, strict=True)]
        document = {**self._head(_size(pictures[0]), self._format), "data": data}
        return self._named(document | _made(steps, understood) | {"timing": {"queue_s": queue_s}})

    def started(self, queue_s: float) -> dict[str, Any]:
        """A picture has left the queue; an extension, as `progress` is."""
        return self._event("started", {"queue_s": queue_s})

    def progress(self, event: ProgressEvent) -> dict[str, Any]:
        """A further step of all pictures is done."""
        return self._event("progress", event.model_dump())

    def preview(self, event: PreviewEvent) -> dict[str, Any]:
        """A small picture on the way. Where its size is not known, that is said which was asked for."""
        number = self._previews[event.image]
        self._previews[event.image] += 1
        form: Any = event.media_type.removeprefix("image/")
        places = {"partial_image_index": number, "image_index": event.image, "step": event.step}
        size = self._size if event.width is None else f"{event.width}x{event.height}"
        return self._event("partial_image", {"b64_json": event.data, **places, **self._head(size, form)})

    def completed(
        self, index: int, picture: Picture, *, steps: int | None, understood: list[str] | None
    ) -> dict[str, Any]:
        """A finished picture."""
        places = {"image_index": index, "seed": picture.seed}
        document = {"b64_json": picture.data, **places, **self._head(_size(picture), self._format)}
        return self._event("completed", document | _made(steps, understood))

    def _event(self, name: str, members: dict[str, Any]) -> dict[str, Any]:
        return self._named({"type": f"{self._kind}.{name}", **members})

    def _named(self, document: dict[str, Any]) -> dict[str, Any]:
        """With the model and the fingerprint, which OpenAI has for texts alone."""
        return {**document, "model": self._model, **fingerprint_member(self.fingerprint)}

    @staticmethod
    def _head(size: str, form: PictureFormat) -> dict[str, Any]:
        """The members that OpenAI has beside a picture."""
        now = int(time.time())
        head = {"created": now, "created_at": now, "size": size, "quality": "auto", "background": "opaque"}
        return head | {"output_format": form}


def _size(picture: Picture) -> str:
    return f"{picture.width}x{picture.height}"


def _made(steps: int | None, understood: list[str] | None) -> dict[str, Any]:
    """How pictures were made, and OpenAI's usage."""
    return {"steps": steps, "understood": understood, "usage": _NO_USAGE}
