"""CloudEvents are counted by type and outcome, as they come and as they are sent."""

from __future__ import annotations

import httpx2
import pytest
from pydantic import SecretStr

from contract import problems
from contract.cloudevents import CANCELLED, COMPLETED, ERROR_CODE, REQUESTED
from tests.support.events import Front, Sink, about, completed, deliver, ended, submit
from tests.support.waiting import eventually
from tests.support.web.samples import Sample
from wire.cloudevents import write_batch


def received(event_type: str, outcome: str = "taken") -> Sample:
    return Sample("events_total", type=event_type, outcome=outcome)


def sent(event_type: str, outcome: str = "taken") -> Sample:
    return Sample("events_sent_total", type=event_type, outcome=outcome)


async def test_events_that_are_taken(front: Front, sink: Sink) -> None:
    taken, requests, others = received(COMPLETED), sent(REQUESTED), received(CANCELLED)
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events, "the request was sent")
    assert (await deliver(client, completed(sink.events[0]))).status_code == 204
    assert (await ended(client, job))["state"] == "completed"
    assert (taken.grown, requests.grown, others.grown) == (1, 1, 0)


async def test_a_reply_in_the_answer_of_the_sink_is_received(front: Front, sink: Sink) -> None:
    taken = received(COMPLETED)
    sink.replies()
    client = await front()
    assert (await ended(client, await submit(client)))["state"] == "completed"
    assert taken.grown == 1


async def test_events_that_are_not_taken(front: Front) -> None:
    malformed, forbidden = received("other", "malformed-event"), received(COMPLETED, "forbidden")
    taken = received(COMPLETED)
    client = await front(events_sources=["urn:ours"])
    assert (await deliver(client, about("a", "com.example.unknown"))).status_code == 400
    assert (await deliver(client, about("a", COMPLETED))).status_code == 403
    assert (malformed.grown, forbidden.grown, taken.grown) == (1, 1, 0)
    assert received("com.example.unknown", "malformed-event").value == 0


async def test_events_without_a_proof(front: Front) -> None:
    unauthorized = received(COMPLETED, "unauthorized")
    client = await front(predictor_token=SecretStr("a-token-of-the-predictors"))
    assert (await deliver(client, about("a", COMPLETED))).status_code == 401
    assert unauthorized.grown == 1


async def test_each_of_a_batch_is_counted(front: Front) -> None:
    taken, malformed = received(CANCELLED), received("other", "malformed-event")
    client = await front()
    events = [*(about(job, CANCELLED) for job in ("a", "b")), about("x", "com.example.unknown")]
    headers, batch = write_batch(events)
    answer = await client.post("/events", headers=headers, content=batch)
    assert answer.status_code == 400
    assert (taken.grown, malformed.grown) == (2, 1)


async def test_a_sink_that_takes_nothing(front: Front, sink: Sink) -> None:
    async def refuse(_event: object) -> httpx2.Response:
        return httpx2.Response(404)

    undelivered, taken = sent(REQUESTED, problems.UNDELIVERED.slug), sent(REQUESTED)
    sink.answer = refuse
    client = await front(job_seconds=0.5)
    await ended(client, await submit(client))
    assert (undelivered.grown >= 1, taken.grown) == (True, 0)


@pytest.mark.parametrize(("returned", "counted"), [(True, 1), (False, 0)])
async def test_a_request_that_comes_back_is_a_dead_letter(
    front: Front, sink: Sink, returned: bool, counted: int
) -> None:
    """And one that a Trigger without a filter delivers is none; nor is it one twice."""
    dead = Sample("dead_letters_total")
    client = await front()
    await submit(client)
    await eventually(lambda: sink.events, "the request was sent")
    extensions = {ERROR_CODE: "503"} if returned else {}
    event = sink.events[0].model_copy(update={"extensions": {**sink.events[0].extensions, **extensions}})
    for _ in range(2):
        assert (await deliver(client, event)).status_code == 204
    assert dead.grown == counted
