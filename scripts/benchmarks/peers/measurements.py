"""What is measured of a server: waves of long texts of a large model, or the many short requests of a small one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.benchmarks.peers.contenders import NAIVE, Running
from scripts.benchmarks.peers.table import Column
from scripts.benchmarks.request_shapes import prompt

TOKENS = 64
"""Of each text."""

CLIENTS = 16
"""Of the requests for one token; also the number of texts that are compared with `generate`'s."""

REQUESTS = 400
SINGLE_REQUESTS = 100
BURST = 200

MEMORY = Column("memory, MiB", min, beside=NAIVE)
EQUAL = Column(f"of {CLIENTS} texts as generate's", None)
FIRST_WAVE = Column(f"first wave of {CLIENTS}, tokens/s")
SINGLE = Column("one token at 1 client, ms p50", min)
RATE = Column(f"one token at {CLIENTS} clients, requests/s")
BURST_SPEED = Column(f"burst of {BURST}, tokens/s")

PROMPTS = [prompt(number) for number in range(CLIENTS)]
"""Whose texts are compared with `generate`'s."""


@dataclass(frozen=True)
class Measurement:
    columns: Sequence[Column]
    measure: Callable[[Running, Sequence[str]], dict[str, float]]
    """Figures of a server that has just started, by the columns' titles; `generate`'s texts for PROMPTS are given."""


def waves(clients: Sequence[int]) -> Measurement:
    """Tokens/s of so many texts at once: the server's first wave, then one of each number."""

    def measure(server: Running, expected: Sequence[str]) -> dict[str, float]:
        figures = _first_wave(server, expected)
        for number, column in columns.items():
            wave = server.send(PROMPTS[:number], TOKENS, number)
            figures[column.title] = number * TOKENS / wave.seconds
        return figures | {MEMORY.title: server.resident_bytes / 2**20}

    columns = {number: Column(f"{number} at once") for number in clients}
    return Measurement([FIRST_WAVE, *columns.values(), MEMORY, EQUAL], measure)


def _requests(server: Running, expected: Sequence[str]) -> dict[str, float]:
    figures = _first_wave(server, expected)
    single = server.send([prompt(number) for number in range(SINGLE_REQUESTS)], 1, 1)
    many = server.send([prompt(number) for number in range(REQUESTS)], 1, CLIENTS)
    burst = server.send([prompt(number) for number in range(BURST)], TOKENS, BURST)
    return figures | {
        SINGLE.title: 1000 * statistics.median(single.each),
        RATE.title: REQUESTS / many.seconds,
        BURST_SPEED.title: BURST * TOKENS / burst.seconds,
        MEMORY.title: server.resident_bytes / 2**20,
    }


REQUEST_RATES = Measurement([SINGLE, RATE, BURST_SPEED, MEMORY, EQUAL], _requests)
"""Requests of one token, alone and from many clients, and a burst of texts."""


def _first_wave(server: Running, expected: Sequence[str]) -> dict[str, float]:
    """The first texts of a server that has just started."""
    wave = server.send(PROMPTS, TOKENS, CLIENTS)
    equal = sum(map(same_text, server.texts(wave), expected))
    return {FIRST_WAVE.title: CLIENTS * TOKENS / wave.seconds, EQUAL.title: equal}


def same_text(text: str, expected: str) -> bool:
    """Whether a server's text is that of `generate`. Where one ends within a character, a tokenizer that decodes it as
    a whole reads none of the bytes before that either, and a server that decodes token by token has read them."""
    return text == expected or ("\ufffd" in expected[-1:] and text.startswith(expected.rstrip("\ufffd")))
