"""The event of a job's end, and its signature."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from contract import ProblemError, problems
from contract.cloudevents import EVENT_BYTES
from tests.support.jobs import new_record, result
from tests.support.web.webhook_receiver import OTHER_SECRET, SECRET
from web.jobs.record import JobRecord
from web.jobs.results import Results
from web.setting_values import signing_key
from web.webhooks.end_event import end_event, signature_headers, webhook_id
from wire.cloudevents import read_events


def ended_record(**changes: Any) -> JobRecord:
    record = new_record(caller="ann", headers={"X-Request-Id": "r", "traceparent": "00-1-2-01"})
    outcome = result(record).model_dump_json()
    fields: dict[str, Any] = {"created": 1.5, "ended": 2.5, "end": "completed", "outcome": outcome, **changes}
    return new_record(**{"caller": "ann", "headers": record.headers, **fields})


def failed(kind: Any = problems.BAD_UPSTREAM) -> str:
    return ProblemError(kind, "Because.").problem.model_dump_json(exclude_none=True)


async def event_of(record: JobRecord) -> dict[str, Any]:
    headers, body = await end_event(record, Results(None), "urn:here", "/base")
    assert len(read_events(headers, body).events) == 1
    document: dict[str, Any] = json.loads(body)
    return document


async def test_the_event_of_a_result() -> None:
    event = await event_of(ended_record())
    data = event.pop("data")
    assert (data["id"], data["text"]) == ("a", "春天")
    assert event == {
        "specversion": "1.0",
        "id": webhook_id(ended_record()),
        "source": "urn:here",
        "type": "ai.shangcai.generation.completed.v1",
        "subject": "a",
        "time": "1970-01-01T00:00:02.500Z",
        "datacontenttype": "application/json",
        "traceparent": "00-1-2-01",
        "model": "poet",
        "caller": "ann",
    }


async def test_the_events_of_other_ends() -> None:
    event = await event_of(ended_record(end="failed", outcome=failed()))
    assert (event["type"], event["data"]["status"]) == ("ai.shangcai.generation.failed.v1", 502)
    event = await event_of(ended_record(end="cancelled", outcome=failed(problems.CANCELLED)))
    assert (event["type"], event["data"]) == ("ai.shangcai.generation.cancelled.v1", {"reason": "Because."})


@pytest.mark.parametrize("characters", [EVENT_BYTES, EVENT_BYTES // 3])
async def test_of_a_large_result_the_event_has_a_reference(characters: int) -> None:
    large = result(new_record()).model_copy(update={"text": "春" * characters})
    event = await event_of(ended_record(outcome=large.model_dump_json()))
    assert event["dataref"] == "/base/generations/a"
    assert "data" not in event
    event = await event_of(ended_record(outcome=None, artifact="file:///elsewhere"))
    assert event["dataref"] == "/base/generations/a"


async def test_the_id_is_of_the_job_and_its_end() -> None:
    record = ended_record()
    assert webhook_id(record) == webhook_id(ended_record())
    others = [
        ended_record(end="failed", outcome=failed()),
        ended_record(created=1.6),
        new_record("b", created=1.5, ended=2.5, end="completed"),
    ]
    assert len({webhook_id(each) for each in [record, *others]}) == 4


async def test_the_specifications_package_verifies_it() -> None:
    headers, body = await end_event(ended_record(), Results(None), "urn:here", "")
    headers |= signature_headers(signing_key(SECRET), webhook_id(ended_record()), int(time.time()), body)
    assert Webhook(SECRET).verify(body, headers) == json.loads(body)
    for secret, content in ((OTHER_SECRET, body), (SECRET, body + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(content, headers)


def test_the_example_of_the_specifications_libraries() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
