"""How often a request whose model server dies is made again."""

from __future__ import annotations

import pytest

from contract import problems
from web.client.failures import ServerGoneError
from web.rest.resumption import JOB_BREAKS, JOB_REFUSALS, MOST_BREAKS, MOST_REFUSALS, Attempts

GONE = ServerGoneError(problems.BAD_UPSTREAM, "It is gone.")


@pytest.mark.parametrize(
    ("of_job", "breaks", "refusals"), [(False, MOST_BREAKS, MOST_REFUSALS), (True, JOB_BREAKS, JOB_REFUSALS)]
)
async def test_a_job_is_left_to_its_worker_sooner(of_job: bool, breaks: int, refusals: int) -> None:
    """Which counts its attempts: what kills its server each time would kill so many times as many."""
    attempts = Attempts(600, of_job=of_job)
    for _ in range(breaks):
        attempts.runs()
        attempts.pause(GONE)
    attempts.runs()
    with pytest.raises(ServerGoneError):
        attempts.pause(GONE)
    attempts = Attempts(600, of_job=of_job)
    for _ in range(refusals - 1):
        attempts.pause(GONE)
    with pytest.raises(ServerGoneError):
        attempts.pause(GONE)
