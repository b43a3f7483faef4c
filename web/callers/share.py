"""What a caller may take, and how answers tell of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from web.settings import Settings

CONCURRENCY, REQUESTS, COST = "concurrency", "requests", "cost"
"""The policies, as the RateLimit fields name them."""

UNLIMITED = "unlimited"


@dataclass(frozen=True)
class Rate:
    """A bucket of `burst` that fills up again by `per_minute`."""

    per_minute: float
    burst: float

    @property
    def unit_s(self) -> float:
        """Seconds in which one unit comes back."""
        return 60 / self.per_minute

    @property
    def full_s(self) -> float:
        """Seconds in which an empty bucket fills up."""
        return self.burst * self.unit_s


@dataclass(frozen=True)
class Share:
    """A minute's worth is the burst where none is given."""

    concurrency: float = math.inf
    requests_per_minute: float = math.inf
    requests_burst: float | None = None
    cost_per_minute: float = math.inf
    cost_burst: float | None = None

    @classmethod
    def of_all(cls, settings: Settings) -> Share:
        """Of every caller for whom nothing else is said."""
        given = {field.name: getattr(settings, f"caller_{field.name}") for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value is not None})

    @property
    def limited(self) -> bool:
        return self.concurrency < math.inf or bool(self.rates)

    @property
    def rates(self) -> dict[str, Rate]:
        """Those that are limited, by their policies."""
        given = {
            REQUESTS: (self.requests_per_minute, self.requests_burst),
            COST: (self.cost_per_minute, self.cost_burst),
        }
        return {name: Rate(each, burst or each) for name, (each, burst) in given.items() if each < math.inf}


NAMES = tuple(field.name for field in fields(Share))


def parse_share(words: Iterable[str]) -> dict[str, float]:
    """The fields of a Share from words such as cost_per_minute=600 or concurrency=unlimited. A ValueError says what is
    wrong and what is allowed."""
    found: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in NAMES or name in found:
            raise ValueError(f"a share is written once as NAME=NUMBER, with a NAME of {', '.join(NAMES)}")
        try:
            number = math.inf if text == UNLIMITED else float(text)
        except ValueError:
            number = 0
        whole = name != CONCURRENCY or number == math.inf or number == int(number)
        if not (number > 0 and whole and (number < math.inf or text == UNLIMITED)):
            kind = "a whole number" if name == CONCURRENCY else "a number"
            raise ValueError(f"{name} must be {kind} above 0, or {UNLIMITED}")
        found[name] = number
    return found


@dataclass(frozen=True)
class Usage:
    """What a caller has taken. `refused` is the policy that kept it from taking more, `wait_s` for how long."""

    refused: str | None
    wait_s: float
    under_way: int
    rates: dict[str, tuple[float, float]]
    """Of each rate: the units that are available, and in how many seconds all are."""


def rate_limit_fields(share: Share, usage: Usage) -> dict[str, str]:
    """RateLimit and RateLimit-Policy as draft-ietf-httpapi-ratelimit-headers-11 (May 2026) has them. Tokens are a unit
    of ours: the draft has requests, content-bytes and concurrent-requests."""
    policies, states = [], []
    for name, rate in share.rates.items():
        unit = ';qu="tokens"' if name == COST else ""
        available, full_in = usage.rates[name]
        policies.append(f'"{name}";q={math.floor(rate.burst)}{unit};w={math.ceil(rate.full_s)}')
        # Of a sum of seconds since some year a part of a microsecond is missing, or too much.
        states.append(f'"{name}";r={math.floor(available + 1e-3)};t={math.ceil(full_in - 1e-3)}')
    if share.concurrency < math.inf:
        policies.append(f'"{CONCURRENCY}";q={int(share.concurrency)};qu="concurrent-requests"')
        states.append(f'"{CONCURRENCY}";r={max(int(share.concurrency) - usage.under_way, 0)}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}
