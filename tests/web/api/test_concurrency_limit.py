"""The places of requests on their way to a model: shared fairly between callers, and none is ever lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import httpx2
import pytest

from contract import ProblemError
from tests.support.waiting import eventually
from tests.support.web.samples import Sample
from web.api.concurrency_limit import ConcurrencyLimit

SECONDS = 60.0


class Requests:
    """Requests that have their places until they are told to end."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit = limit
        self.let_through: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def come(self, *names: str, cost: float = 1.0, seconds: float = SECONDS) -> None:
        """Requests are named by their caller and a number. Returns once they are through or wait."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._request(name, cost, seconds))
        await settled()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await asyncio.wait_for(asyncio.wait([self.tasks[name] for name in names]), SECONDS)
        await settled()

    async def problem(self, name: str) -> ProblemError:
        with pytest.raises(ProblemError) as refused:
            await asyncio.wait_for(self.tasks[name], SECONDS)
        assert refused.value.kind.slug == "overloaded"
        return refused.value

    async def _request(self, name: str, cost: float, seconds: float) -> None:
        with self.limit.acquire(name[0], cost) as place:
            await self.limit.wait(place, seconds)
            self.let_through.append(name)
            await self._ends[name].wait()


async def settled() -> None:
    """Everything that can go on without time passing has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_so_many_are_let_through_at_a_time() -> None:
    requests = Requests(ConcurrencyLimit("poet", 2, 10))
    await requests.come("a1", "a2", "a3", "a4")
    assert (requests.let_through, requests.limit.in_flight) == (["a1", "a2"], 2)
    await requests.end("a2")
    assert (requests.let_through, requests.limit.in_flight) == (["a1", "a2", "a3"], 2)
    await requests.end("a1", "a3", "a4")
    assert requests.limit.in_flight == 0


async def test_places_go_to_the_callers_in_turn_and_by_cost() -> None:
    requests = Requests(ConcurrencyLimit("poet", 1, 100))
    await requests.come(*(f"a{number}" for number in range(20)))
    await requests.come(*(f"b{number}" for number in range(5)), cost=2)
    for _ in range(9):
        await requests.end(requests.let_through[-1])
    assert Counter(name[0] for name in requests.let_through) == {"a": 7, "b": 3}
    await requests.come("c0")
    for _ in range(2):
        await requests.end(requests.let_through[-1])
    assert requests.let_through[-2:] == ["b3", "c0"]  # of two that are due together, who has waited longer


async def test_where_too_many_wait_the_one_with_most_is_refused() -> None:
    requests = Requests(ConcurrencyLimit("poet", 1, 4))
    await requests.come("a0", "a1", "a2", "a3", "a4")
    await requests.come("b0")  # in the place of a's last one
    refused = await requests.problem("a4")
    assert int(refused.headers["Retry-After"]) == 5
    await requests.come("a5")  # which is one too many itself
    await requests.problem("a5")
    await requests.come("b1")
    await requests.problem("a3")
    await requests.come("b2")  # has as many as the other by now
    await requests.problem("b2")
    for name in ("a0", "b0", "a1"):
        await requests.end(name)
    assert requests.let_through == ["a0", "b0", "a1", "b1"]


async def test_where_none_may_wait_all_beyond_the_limit_are_refused() -> None:
    requests = Requests(ConcurrencyLimit("poet", 1, 0))
    await requests.come("a0", "b0")
    assert (await requests.problem("b0")).headers == {"Retry-After": "1"}


async def test_one_whose_time_is_over_is_refused_and_gives_up_its_place() -> None:
    requests = Requests(ConcurrencyLimit("poet", 1, 1))
    await requests.come("a0")
    await requests.come("a1", seconds=0.01)
    assert "0.01 s" in str(await requests.problem("a1"))
    await requests.come("a2")
    await requests.end("a0")
    assert requests.let_through == ["a0", "a2"]


async def test_a_caller_with_nothing_in_flight_does_not_wait_for_others_to_end() -> None:
    requests = Requests(ConcurrencyLimit("poet", 40, 100))
    await requests.come(*(f"a{number}" for number in range(45)))
    assert requests.limit.in_flight == 40
    await requests.come("b0", "b1", "c0", "d0")  # there are two such places
    assert requests.let_through[40:] == ["b0", "c0"]
    await requests.end("a0", "a1", "a2")
    assert requests.let_through[42:] == ["d0"]  # the others' places were beyond the limit
    await requests.end("b0", "c0")
    assert requests.limit.in_flight == 40
    assert set(requests.let_through[43:]) == {"b1", "a40"}


@pytest.mark.parametrize("steps", range(8))
async def test_no_place_is_lost_whenever_a_request_is_cancelled(steps: int) -> None:
    """At each await: before it has come, while it waits, as it is let through or refused, and under way."""
    for end in (("a0",), ("a0", "c0"), ()):
        requests = Requests(ConcurrencyLimit("poet", 2, 2))
        await requests.come("a0", "c0")
        coming = asyncio.create_task(requests.come("b0", "b1"))
        ending = [asyncio.create_task(requests.end(name)) for name in end]
        for _ in range(steps):
            await asyncio.sleep(0)
        for name in ("b0", "b1"):
            if name in requests.tasks:
                requests.tasks[name].cancel()
        await asyncio.gather(coming, *ending)
        await requests.end(*requests.tasks)
        assert requests.limit.in_flight == 0
        await requests.come("d0", "d1", "d2")
        assert [name for name in requests.let_through if name[0] == "d"] == ["d0", "d1"]
        await requests.end("d0", "d1", "d2")
        assert requests.limit.in_flight == 0


async def test_of_many_that_are_cancelled_at_once_none_keeps_a_place() -> None:
    requests = Requests(ConcurrencyLimit("poet", 3, 100))
    names = [f"{'abc'[number % 3]}{number}" for number in range(60)]
    await requests.come(*names)
    for number, name in enumerate(names):
        if number % 4:
            requests.tasks[name].cancel()
        if number % 7 == 0:
            await asyncio.sleep(0)
    await settled()
    while requests.limit.in_flight:
        await requests.end(*requests.let_through)
    kept = {name for number, name in enumerate(names) if number % 4 == 0}
    assert kept <= set(requests.let_through)


async def test_a_request_frees_its_place_however_it_ends() -> None:
    limit = ConcurrencyLimit("poet", 1, 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), limit.acquire("a", 1):
            raise ZeroDivisionError
    with limit.acquire("a", 1):
        assert limit.in_flight == 1
    assert limit.in_flight == 0


async def test_a_retry_after_grows_with_those_that_wait() -> None:
    requests = Requests(ConcurrencyLimit("poet", 2, 3))
    for number in range(20):
        with requests.limit.acquire("a", 1) as place:
            assert place.begun is not None
            place.begun -= 20.0  # a request takes about that long
        assert requests.limit.in_flight == 0, number
    await requests.come("a0", "a1", "a2", "a3", "a4", "a5")
    assert 40 <= int((await requests.problem("a5")).headers["Retry-After"]) <= 51


async def test_a_stream_that_waits_for_its_place_is_open_and_leaves_when_its_client_does(
    web: Callable[..., httpx2.AsyncClient],
) -> None:
    held, asked = asyncio.Event(), 0

    async def hold(_: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        await held.wait()
        return httpx2.Response(500)

    client = web(hold, max_in_flight=1)
    first, second, third = (
        asyncio.create_task(client.post("/generate", json={"prompt": "x", "stream": number == 1}))
        for number in range(3)
    )
    await eventually(lambda: asked)
    second.cancel()
    await asyncio.wait({second})
    held.set()
    assert {(await first).status_code, (await third).status_code} == {502}
    assert asked >= 2


async def test_the_metrics_say_who_waits_and_who_is_refused() -> None:
    rejected = Sample("requests_rejected_total", model="poet")

    def shown() -> tuple[float, float]:
        running, waiting = (Sample(f"num_requests_{state}", model="poet") for state in ("running", "waiting"))
        return running.value, waiting.value

    oldest = Sample("oldest_request_waiting_seconds", model="poet")
    requests = Requests(ConcurrencyLimit("poet", 1, 2))
    await requests.come("a0")
    assert (shown(), oldest.value) == ((1, 0), 0)
    await requests.come("a1", "b0")
    first = oldest.value
    assert (shown(), first > 0) == ((1, 2), True)
    await requests.come("a2")
    await requests.problem("a2")
    assert (shown(), rejected.grown) == ((1, 2), 1)
    await requests.end("a0")
    assert (shown(), oldest.value > 0) == ((1, 1), True)
    requests.tasks["b0" if "a1" in requests.let_through else "a1"].cancel()
    await settled()
    assert (shown(), oldest.value) == ((1, 0), 0)
    await requests.end(requests.let_through[-1])
    assert (shown(), rejected.grown) == ((0, 0), 1)


async def test_the_oldest_is_who_came_first_and_still_waits() -> None:
    limit = ConcurrencyLimit("poet", 1, 10)
    requests, oldest = Requests(limit), Sample("oldest_request_waiting_seconds", model="poet")
    await requests.come("a0", "a1", "a2")
    for place, age in zip(limit._came, (90.0, 50.0), strict=True):
        limit._came[place] -= age
    await requests.come("b0")
    requests.tasks["b0"].cancel()  # which has it looked up again
    await settled()
    assert 90 <= oldest.value < 140
    await requests.end("a0")
    assert 50 <= oldest.value < 90
