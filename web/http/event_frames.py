"""What the streams of all of OpenAI's routes have in common: comments on waiting, and an error at the end."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from contract import ProblemError, StatusEvent, problems
from contract.problems import renamed
from wire.openai_problems import error_document
from wire.sse import frame

log = logging.getLogger(__name__)

Item = TypeVar("Item")

compact_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def data_frame(document: dict[str, Any], event: str | None = None) -> bytes:
    """A document as the data of an event."""
    return frame(compact_json(document), event)


def status_frame(event: StatusEvent) -> bytes:
    """What a generation waits for, as a comment, which OpenAI's clients pass over."""
    return f": {event.model_dump_json()}\n\n".encode()


async def chained(first: Item, others: AsyncIterable[Item]) -> AsyncGenerator[Item]:
    """What was waited for before the answer began, and what comes after it. Who has made the others closes them."""
    yield first
    async for other in others:
        yield other


async def caught(
    frames: AsyncGenerator[bytes], names: Mapping[str, str], event: str | None = None
) -> AsyncGenerator[bytes]:
    """The frames, and where they fail an error as the last: it is too late for a status, and OpenAI's clients raise
    what `error` says. `names` are the client's, see `renamed`."""
    try:
        async with aclosing(frames):
            async for encoded in frames:
                yield encoded
    except ProblemError as error:
        yield data_frame(error_document(renamed(error, names)), event)
    except Exception:
        log.exception("a stream failed")
        yield data_frame(error_document(problems.internal()), event)
