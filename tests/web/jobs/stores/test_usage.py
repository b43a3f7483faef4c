"""What either store says that it holds."""

from __future__ import annotations

import pytest

from contract import ProblemError, problems
from tests.support.jobs import new_record
from web.jobs.store import JobStore
from web.jobs.stores import redis_budget

PROBLEM = ProblemError(problems.CANCELLED, "Because.").problem.model_dump_json()


@pytest.fixture(params=[2, 256])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_budget, "PAGE", request.param)


@pytest.mark.usefixtures("page")
async def test_open_jobs_are_counted_by_model_and_state(store: JobStore) -> None:
    assert not (await store.usage()).jobs
    now = await store.now()
    for number in range(5):
        await store.add(new_record(f"queued{number}", created=now - number))
    await store.add(new_record("picture", model="painter", created=now - 70))
    for job in ("running", "ended"):
        await store.add(new_record(job, created=now - 90))
        await store.start(job, now)
    await store.finish("ended", "cancelled", PROBLEM, now)
    usage = await store.usage()
    assert usage.jobs == {("poet", "queued"): 5, ("poet", "running"): 1, ("painter", "queued"): 1}
    assert usage.oldest == pytest.approx({"poet": now - 4, "painter": now - 70})
    await store.reset("running")
    assert (await store.usage()).jobs["poet", "queued"] == 6
    await store.finish("picture", "cancelled", PROBLEM, now)
    usage = await store.usage()
    assert usage.jobs == {("poet", "queued"): 6}
    assert list(usage.oldest) == ["poet"]


async def test_bytes_grow_with_what_is_stored(store: JobStore) -> None:
    sizes = [(await store.usage()).size]
    for number in range(3):
        await store.add(new_record(str(number), request=new_record().request))
        sizes.append((await store.usage()).size)
    await store.finish("0", "cancelled", PROBLEM, await store.now())
    record = await store.get("0")
    assert record is not None
    ended = (await store.usage()).size
    await store.delete(record)
    left = (await store.usage()).size
    assert sizes == sorted(set(sizes))
    assert left < ended
    assert left == pytest.approx(sizes[2])
    assert (await store.usage()).most_size == 1_000_000
