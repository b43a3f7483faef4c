"""How soon the events of a generation reach the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from predictor.engine.events import Started, TextFinished, Token
from predictor.engine.generation import Generation

LIMIT = 10.0
END = TextFinished("stop", 1, 3)


async def test_an_end_brings_the_pieces_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first piece does not wait, nor does the end, and pieces wait for either."""
    monkeypatch.setattr("predictor.engine.generation.PIECE_SECONDS", 1_000.0)
    generation = Generation()
    events = aiter(generation)
    for event in (Started(0.0), Token("a")):
        generation.publish(event)
        assert await asyncio.wait_for(anext(events), LIMIT) == event
    generation.publish(Token("b"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not generation.has_more
    generation.publish(END)
    assert [event async for event in events] == [Token("b"), END]


async def test_a_piece_of_one_text_comes_with_the_end_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predictor.engine.generation.PIECE_SECONDS", 1_000.0)
    first, second = Generation(), Generation()
    events = aiter(first)
    for piece in ("a", "b"):
        first.publish(Token(piece))
    second.publish(END)
    assert [await asyncio.wait_for(anext(events), LIMIT) for _ in range(2)] == [Token("a"), Token("b")]


async def test_pieces_alone_come_by_themselves() -> None:
    """From another thread, as the engine's."""
    generation = Generation()
    pieces = [Token(str(number)) for number in range(1_000)]

    def write() -> None:
        for piece in pieces:
            generation.publish(piece)

    writer = threading.Thread(target=write)
    writer.start()
    events = aiter(generation)
    assert [await asyncio.wait_for(anext(events), LIMIT) for _ in pieces] == pieces
    writer.join()
