"""The events of a response, as they follow from the log of its job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from contract import (
    LiveEvent,
    Problem,
    ReasoningEvent,
    StatusEvent,
    TextResult,
    Timing,
    TokenEvent,
    ToolCallEvent,
    Usage,
)
from contract.openai.responses.documents import Document, ResponseDocuments
from contract.openai.responses.kept import KeptResponse
from contract.openai.responses.request import ResponsesRequest
from contract.openai.responses.stream import ResponseEvents
from contract.texts.logprobs import LikelyToken, TokenLogprob
from contract.texts.tools import CalledFunction, ToolCall

ADAPTER: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

RUNNING, QUEUED = StatusEvent(state="running"), StatusEvent(state="queued")
CALL = ToolCall(id="call_1", function=CalledFunction(name="weather", arguments='{"a": 1}'))
OTHER = ToolCall(id="call_2", function=CalledFunction(name="time", arguments="{}"))


def result(text: str = "春天", **changes: Any) -> TextResult:
    usage, timing = Usage(prompt_tokens=1, completion_tokens=2), Timing(queue_s=None, first_token_s=0.1, total_s=0.2)
    members: dict[str, Any] = {"finish_reason": "stop", "usage": usage, "timing": timing, **changes}
    return TextResult(id="j", model="poet", text=text, **members)


def begun() -> ResponseEvents:
    body = ResponsesRequest.model_validate({"model": "poet", "input": "moon"})
    return ResponseEvents(ResponseDocuments("j", 1.0, "poet", KeptResponse.of(body, [])))


def told(*events: LiveEvent, end: TextResult | Problem) -> list[Document]:
    """All events of a log; each is what the official client takes for one of its own."""
    stream = begun()

    def all_of_them() -> Iterator[Document]:
        yield from stream.begin()
        for event in events:
            yield from stream.add(event)
            if stream.ended:
                return
        if isinstance(end, TextResult):
            yield from stream.complete(end, 2.0)
        else:
            yield from stream.fail(end, 2.0, cancelled=False)

    documents = list(all_of_them())
    assert stream.ended
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))
    for document in documents:
        ADAPTER.validate_python(document)
    return documents


def brief(documents: list[Document]) -> list[str]:
    return [document["type"].removeprefix("response.") for document in documents]


def deltas(documents: list[Document]) -> list[str]:
    return [document["delta"] for document in documents if "delta" in document]


def calling(index: int, call: ToolCall, *pieces: str) -> list[LiveEvent]:
    head = ToolCallEvent(index=index, id=call.id, name=call.function.name)
    return [head, *(ToolCallEvent(index=index, arguments=piece) for piece in pieces)]


def test_calls_come_after_the_text() -> None:
    whole = result("Look:", tool_calls=[CALL, OTHER], finish_reason="tool_calls")
    events = told(
        RUNNING,
        TokenEvent(text="Look:"),
        *calling(0, CALL, '{"a"', ": 1}"),
        *calling(1, OTHER, "{}"),
        end=whole,
    )
    assert brief(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    message, first, second = events[-1]["response"]["output"]
    assert message["content"][0]["text"] == "Look:"
    assert (first["call_id"], first["name"], first["arguments"]) == ("call_1", "weather", '{"a": 1}')
    assert second["id"] != first["id"]
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert [done[place] for place in range(3)] == [message, first, second]


def test_a_call_without_a_text_is_the_only_item() -> None:
    whole = result("", tool_calls=[CALL], finish_reason="tool_calls")
    for events in (told(end=whole), told(RUNNING, *calling(0, CALL, '{"a": 1}'), end=whole)):
        assert [item["type"] for item in events[-1]["response"]["output"]] == ["function_call"]
        assert "".join(deltas(events)) == '{"a": 1}'


def test_what_was_not_told_on_the_way_comes_at_the_end() -> None:
    whole = result("春天来了", reasoning_content="Hmm.")
    assert deltas(told(end=whole)) == ["Hmm.", "春天来了"]
    assert deltas(told(RUNNING, ReasoningEvent(text="Hmm."), TokenEvent(text="春"), end=whole)) == [
        "Hmm.",
        "春",
        "天来了",
    ]


@pytest.mark.parametrize("again", [["春", "天"], ["春天"], ["春天", "来"]])
def test_a_job_that_begins_again_tells_nothing_twice(again: list[str]) -> None:
    pieces = [TokenEvent(text=piece) for piece in again]
    events = told(RUNNING, TokenEvent(text="春"), QUEUED, QUEUED, RUNNING, *pieces, end=result("春天来"))
    assert "".join(deltas(events)) == "春天来"
    assert brief(events).count("in_progress") == 1
    call = calling(0, CALL, '{"a"')
    events = told(*call, QUEUED, *call, end=result("", tool_calls=[CALL], finish_reason="tool_calls"))
    assert "".join(deltas(events)) == '{"a": 1}'


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([TokenEvent(text="春"), QUEUED, TokenEvent(text="秋")], result()),
        ([TokenEvent(text="秋")], result("春天")),
        ([ReasoningEvent(text="Hm"), TokenEvent(text="春"), ReasoningEvent(text="m.")], result()),
        ([ToolCallEvent(index=0, arguments="{")], result()),
        ([*calling(0, CALL), QUEUED, *calling(0, OTHER)], result()),
        (calling(0, CALL, "{}"), result()),
    ],
)
def test_one_that_goes_another_way_ends_with_an_error(events: list[LiveEvent], end: TextResult) -> None:
    last = told(RUNNING, *events, end=end)[-1]
    assert (last["type"], last["code"]) == ("error", "diverged")


@pytest.mark.parametrize("status", [[], [RUNNING], [QUEUED, RUNNING]])
def test_a_log_without_its_beginning_gives_the_events_of_the_result_alone(status: list[LiveEvent]) -> None:
    whole = result("春天来", reasoning_content="Hmm.")
    assert told(TokenEvent(text="天"), *status, TokenEvent(text="来"), end=whole) == told(end=whole)
    resumed = StatusEvent(state="running", resumed=True)
    assert told(resumed, TokenEvent(text="天"), *status, TokenEvent(text="来"), end=whole) == told(end=whole)


def test_a_failure() -> None:
    problem = Problem(type="urn:x", title="t", status=503, detail="The server is full.")
    last = told(RUNNING, TokenEvent(text="春"), end=problem)[-1]
    assert last["response"]["error"] == {"code": "server_error", "message": "The server is full."}
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")


def test_a_text_that_was_cut_is_incomplete() -> None:
    last = told(end=result(finish_reason="length"))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_how_likely_the_tokens_were() -> None:
    token = TokenLogprob(
        token="春", logprob=-0.5, bytes=[1], top_logprobs=[LikelyToken(token="秋", logprob=-1.0, bytes=[2])]
    )
    events = told(RUNNING, TokenEvent(text="春", logprobs=[token]), end=result("春", logprobs=[token]))
    likely = [event["logprobs"] for event in events if "logprobs" in event]
    assert likely == [[token.model_dump()]] * 2
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == [token.model_dump()]
