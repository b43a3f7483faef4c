"""Once a job is claimed again, nothing that its earlier run writes counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.support.jobs import MakeStore, added, claimed, entries_of, pairs
from web.jobs.record import Claim
from web.jobs.store import ClaimLost, JobStore
from web.jobs.stores import redis_queue

LATE: list[Callable[[JobStore, int], Awaitable[object]]] = [
    lambda store, generation: store.start("a", 6, generation),
    lambda store, generation: store.append("a", [("token", "A2")], generation),
    lambda store, generation: store.append_progress("a", 9, lambda _: ("token", "A2"), generation),
    lambda store, generation: store.reset("a", generation),
    lambda store, generation: store.finish("a", "completed", "A", 8, generation),
]


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.05)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)


async def taken_over(make: MakeStore) -> tuple[JobStore, Claim, JobStore, Claim]:
    """Two replicas and their claims of a job: the first has begun with it and stalled, the second goes on."""
    first = await make()
    second = await make() if first.shared else first
    await added(first, "a")
    lost = await claimed(first)
    assert await first.start("a", 5, lost.generation)
    await first.append("a", [("token", "A1")], lost.generation)
    if not first.shared:
        await first.release(lost)  # a lease in memory does not run out
    return first, lost, second, await claimed(second)


async def test_each_claim_is_a_generation(make: MakeStore) -> None:
    _, lost, second, claim = await taken_over(make)
    assert (lost.generation, claim.generation) == (1, 2)
    record = await second.get("a")
    assert record is not None
    assert record.generation == 2


@pytest.mark.parametrize("write", LATE)
async def test_late_writes_of_a_run_that_was_taken_over_are_refused(
    make: MakeStore, write: Callable[[JobStore, int], Awaitable[object]]
) -> None:
    first, lost, second, claim = await taken_over(make)
    with pytest.raises(ClaimLost):
        await write(first, lost.generation)
    await second.reset("a", claim.generation)
    assert await second.start("a", 6, claim.generation)
    await second.append("a", [("token", "B1")], claim.generation)
    with pytest.raises(ClaimLost):
        await write(first, lost.generation)
    await second.append_progress("a", 1, lambda _: ("token", "B2"), claim.generation)
    assert await second.finish("a", "completed", "B", 7, claim.generation)
    assert pairs(await entries_of(second, "a")) == [
        ("token", "A1"),
        ("token", "B1"),
        ("token", "B2"),
        ("result", "B"),
    ]
    await write(first, lost.generation)  # the job has ended: that is no news to anybody
    record = await second.get("a")
    assert record is not None
    assert (record.outcome, record.attempts) == ("B", 2)


async def test_who_holds_no_claim_is_not_refused(make: MakeStore) -> None:
    """A cancellation, and what a broker delivers."""
    first, *_ = await taken_over(make)
    await first.append_progress("a", 1, lambda _: ("token", "told"))
    assert await first.finish("a", "cancelled", "{}", 7)
    assert [event for event, _ in pairs(await entries_of(first, "a"))] == ["token", "token", "error"]


async def test_a_claim_that_was_taken_over_is_neither_renewed_nor_released(make: MakeStore) -> None:
    first, lost, second, claim = await taken_over(make)
    if first.shared:
        assert list(await first.renew([lost, claim])) == [lost]
    await first.release(lost)
    await second.append("a", [("token", "B1")], claim.generation)  # is still the claim of the second


async def test_a_replica_that_claims_again_what_it_holds_goes_on(make: MakeStore) -> None:
    """Its lease ran out in an outage."""
    store = await make()
    if not store.shared:
        return
    await added(store, "a")
    claim = await claimed(store)
    assert await claimed(store) == claim
    await store.append("a", [("token", "A1")], claim.generation)
    await store.release(claim)
    assert (await claimed(store)).generation == claim.generation + 1
