"""Counters that all replicas share, in Redis or Valkey: one round trip for each request, and one to give a place back.

The library `limits` (5.8) does not fit: it has neither GCRA nor bursts, asks once for each of a request's limits, keeps
an entry for each unit of cost in its moving window, and knows no leases.
"""

from __future__ import annotations

import logging
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from web.callers.counters import LEASE_SECONDS, MemoryCounters, amounts, available
from web.callers.share import Share, Usage
from web.telemetry.store_commands import note_command
from wire.shared_store.circuit_breaker import CircuitBreaker
from wire.shared_store.client import connect

log = logging.getLogger(__name__)

OUTAGE_SECONDS = 5.0
"""How long Redis is not asked again after it could not be reached, because every request would wait for it."""

COMMAND_SECONDS = 1.0
"""Longest wait for Redis to connect or to answer: a request waits for it."""

MOST_CONNECTIONS = 16
"""Most connections of this process. Commands that find none free wait for one."""

_TAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local under_way = redis.call('ZCARD', KEYS[2])
local most = tonumber(ARGV[3])
local refused, wait = '', 0
if most >= 0 and under_way >= most then refused = 'concurrency' end
local names, full_at = {}, {}
for i = 4, #ARGV, 3 do
  local name, taken, full = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local before = math.max(tonumber(redis.call('HGET', KEYS[1], name) or now), now)
  local this = before + math.min(taken, full) - full - now
  if this > math.max(wait, 0.000001) then refused, wait = name, this end
  names[#names + 1] = name
  full_at[#names] = before
end
if refused == '' then
  local last = now
  for i, name in ipairs(names) do
    full_at[i] = full_at[i] + tonumber(ARGV[3 * i + 2])
    last = math.max(last, full_at[i])
    redis.call('HSET', KEYS[1], name, string.format('%.6f', full_at[i]))
  end
  if #names > 0 then redis.call('PEXPIRE', KEYS[1], math.ceil((last - now) * 1000) + 1000) end
  if most >= 0 then
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
    redis.call('PEXPIRE', KEYS[2], math.ceil(tonumber(ARGV[2]) * 1000))
  end
  under_way = under_way + 1
end
local answer = {refused, string.format('%.6f', wait), under_way}
for i, _ in ipairs(names) do answer[i + 3] = string.format('%.6f', full_at[i] - now) end
return answer
"""
"""ARGV: the place, its lease in seconds, the most places (-1 for any number), and of each rate its name, the seconds
that are taken of its bucket, and the seconds in which that fills up."""

_RENEW = """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[2]) * 1000))
"""


class RedisCounters:
    """While Redis cannot be reached, or takes no more, each replica counts for itself: neither is everything refused,
    nor does anything pass that one replica alone would refuse."""

    def __init__(self, url: str) -> None:
        self._client = connect(
            url,
            most_connections=MOST_CONNECTIONS,
            wait_seconds=COMMAND_SECONDS,
            retry=Retry(NoBackoff(), 1),
            socket_connect_timeout=COMMAND_SECONDS,
            socket_timeout=COMMAND_SECONDS,
            decode_responses=True,
            observe=note_command,
        )
        self._take = self._client.register_script(_TAKE)
        self._renew = self._client.register_script(_RENEW)
        self._own = MemoryCounters()
        self._own_places: set[str] = set()
        self._store = CircuitBreaker(
            OUTAGE_SECONDS,
            log,
            lost="the shares of callers are not in the store, each replica goes by its own counts",
            back="the shares of callers are in the store again",
        )

    async def take(self, caller: str, share: Share, cost: float, place: str) -> Usage:
        most = -1 if share.concurrency == float("inf") else int(share.concurrency)
        arguments: list[Any] = [place, LEASE_SECONDS, most]
        for name, (rate, amount) in amounts(share, cost).items():
            arguments += [name, repr(amount * rate.unit_s), repr(rate.full_s)]
        answer = await self._store.ask(lambda: self._take(keys=_keys(caller), args=arguments))
        if answer is None:
            usage = await self._own.take(caller, share, cost, place)
            if usage.refused is None and most >= 0:
                self._own_places.add(place)
            return usage
        refused, wait_s, under_way, *full_in = answer
        rates = zip(share.rates.items(), full_in, strict=True)
        return Usage(
            refused or None,
            float(wait_s),
            int(under_way),
            {name: available(rate, float(seconds)) for (name, rate), seconds in rates},
        )

    async def renew(self, caller: str, place: str) -> None:
        if place not in self._own_places:
            await self._store.ask(lambda: self._renew(keys=_keys(caller)[1:], args=[place, LEASE_SECONDS]))

    async def release(self, caller: str, place: str) -> None:
        if place in self._own_places:
            self._own_places.discard(place)
            await self._own.release(caller, place)
        else:  # a lease that is not given back runs out
            await self._store.ask(lambda: self._client.zrem(_keys(caller)[1], place))

    async def close(self) -> None:
        await self._client.aclose()


def _keys(caller: str) -> list[str]:
    """Of the rates and of the places; in braces is what a Redis Cluster chooses the node by."""
    return [f"shangcai:share:{{{caller}}}:rates", f"shangcai:share:{{{caller}}}:places"]
