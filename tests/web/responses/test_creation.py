"""New responses, as the official client sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel
from starlette.types import ASGIApp

from contract import problems
from contract.openai.error_codes import CONTEXT_LENGTH
from contract.problems import FieldError, field_problem, invalid_field
from tests.support.waiting import eventually
from tests.support.web.job_requests import LIMIT, Poet
from web.app import create_app
from web.callers.key_file import entry
from web.settings import Settings
from wire.drain import Drain

Client = Callable[..., Awaitable[openai.AsyncOpenAI]]


class Poem(BaseModel):
    line: str


async def test_a_response(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    poet.finish.set()
    asked = await client(**store)
    response = await asked.responses.create(
        model="poet", input="moon", instructions="Rhyme.", max_output_tokens=9, metadata={"a": "b"}
    )
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.model) == ("response", "completed", "poet")
    assert response.output_text == "春天"
    reasoning, message = response.output
    assert reasoning.type == "reasoning"
    assert reasoning.content is not None
    assert [part.text for part in reasoning.content] == ["Hmm."]
    assert message.type == "message"
    assert (message.role, message.status) == ("assistant", "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (7, 3, 10)
    assert (response.instructions, response.max_output_tokens, response.metadata) == ("Rhyme.", 9, {"a": "b"})
    assert (response.tool_choice, response.tools, response.parallel_tool_calls) == ("auto", [], True)
    body = json.loads(poet.asked[0].content)
    assert body["messages"] == [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "moon"}]
    assert await asked.responses.retrieve(response.id) == response


async def test_one_that_was_cut_is_incomplete(client: Client, stream: Callable[..., bytes]) -> None:
    poet = Poet(stream("春", "天", finish_reason="length"))
    poet.finish.set()
    response = await (await client(poet)).responses.create(model="poet", input="moon", max_output_tokens=2)
    assert (response.status, response.output_text) == ("incomplete", "春天")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


async def test_it_is_parsed_by_the_clients_helper(client: Client, stream: Callable[..., bytes]) -> None:
    poet = Poet(stream('{"line":"', '天"}'))
    poet.finish.set()
    asked = await client(poet)
    response = await asked.responses.parse(model="poet", input="moon", text_format=Poem)
    assert response.output_parsed == Poem(line="天")
    schema = json.loads(poet.asked[0].content)["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"], schema["schema"]["required"]) == ("Poem", True, ["line"])


async def test_in_the_background(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    asked = await client(**store)
    response = await asked.responses.create(model="poet", input="moon", background=True)
    assert (response.status, response.background, response.output) == ("queued", True, [])

    async def status(*wanted: str) -> Any:
        found = await asked.responses.retrieve(response.id)
        return found if found.status in wanted else None

    await eventually(lambda: status("in_progress"), "it runs")
    poet.finish.set()
    found = await eventually(lambda: status("completed"), "it has ended")
    assert found.output_text == "春天"
    assert found.completed_at >= found.created_at


async def test_what_the_client_leaves_is_cancelled(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    asked = await client(**store)
    stream = await asked.responses.create(model="poet", input="moon", stream=True)
    first = await anext(aiter(stream))
    assert first.type == "response.created"
    await stream.close()

    async def status() -> bool:
        return (await asked.responses.retrieve(first.response.id)).status == "cancelled"

    await eventually(status, "it is cancelled")


async def test_a_plain_one_is_cancelled_when_its_client_leaves(client: Client, poet: Poet) -> None:
    asked = await client()
    waiting = asyncio.ensure_future(asked.responses.create(model="poet", input="moon"))
    await eventually(lambda: poet.asked, "the model server is asked")
    waiting.cancel()
    await asyncio.wait({waiting})
    poet.finish.set()
    response = await asked.responses.create(model="poet", input="moon")
    assert response.status == "completed"
    assert len(poet.asked) == 2


async def test_of_one_that_is_not_stored_nothing_is_left(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    poet.finish.set()
    asked = await client(**store)
    response = await asked.responses.create(model="poet", input="moon", store=False)
    assert response.output_text == "春天"
    with pytest.raises(openai.NotFoundError, match="not kept at all where store was false"):
        await asked.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError):
        await asked.responses.create(model="poet", input="more", previous_response_id=response.id)
    job = response.id.removeprefix("resp_")
    with pytest.raises(openai.NotFoundError):
        await asked.get(f"../generations/{job}", cast_to=httpx2.Response)


async def test_one_that_is_not_stored_cannot_be_found_while_it_runs(
    client: Client, store: dict[str, Any], tmp_path: Any
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(entry("ann", "key-of-ann-1"))
    asked = await client(api_key="key-of-ann-1", callers="keys", callers_file=keys, **store)
    stream = await asked.responses.create(model="poet", input="moon", store=False, stream=True)
    first = await anext(aiter(stream))
    assert first.type == "response.created"
    with pytest.raises(openai.NotFoundError):
        await asked.responses.retrieve(first.response.id)
    job = first.response.id.removeprefix("resp_")
    for ask in (asked.get, asked.delete):
        with pytest.raises(openai.NotFoundError):
            await ask(f"../generations/{job}", cast_to=httpx2.Response)
    listed: Any = await asked.get("../generations", cast_to=object)
    assert listed["generations"] == []
    await stream.close()


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"background": True, "store": False}, "background", "needs store"),
        ({"tools": [{"type": "web_search"}]}, "tools.0", "the type web_search is not offered here"),
        ({"model": "painter"}, "model", "painter makes pictures"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.id", "there is no item of this id"),
        ({"conversation": "conv_1"}, "conversation", "is not supported here"),
        ({"extra_headers": {"Idempotency-Key": "k"}, "store": False}, "Idempotency-Key", "store"),
        ({"input": ""}, "input", "must contain more than white space"),
        ({"input": " \n"}, "input", "must contain more than white space"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 1"),
    ],
)
async def test_what_is_not_done_is_refused_by_name(
    client: Client, fields: dict[str, Any], param: str, message: str
) -> None:
    asked = await client()
    with pytest.raises(openai.BadRequestError, match=message) as error:
        await asked.responses.create(**{"model": "poet", "input": "moon", **fields})
    assert (error.value.param, error.value.type) == (param, "invalid_request_error")


@pytest.mark.parametrize("instructions", [None, "Be brief."])
async def test_reasoning_alone_asks_for_nothing(client: Client, instructions: str | None) -> None:
    with pytest.raises(openai.BadRequestError, match="not of reasoning alone") as error:
        await (await client()).responses.create(
            model="poet", input=[{"type": "reasoning", "id": "a", "summary": []}], instructions=instructions
        )
    assert error.value.param == "input"


async def test_what_is_not_offered_is_not_found(client: Client) -> None:
    asked = await client()
    with pytest.raises(openai.NotFoundError):
        await asked.responses.input_tokens.count(model="poet", input="moon")
    with pytest.raises(openai.NotFoundError):
        await asked.responses.compact(model="poet", input="moon")


async def test_an_unknown_model(client: Client) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        await (await client()).responses.create(model="gpt", input="moon")
    assert error.value.code == "model_not_found"


async def test_a_failure_is_an_error_of_a_plain_request_and_the_status_of_any_other(client: Client, poet: Poet) -> None:
    refusal = {"error": {"message": "the template takes no tools", "type": "invalid_request_error", "param": "tools"}}
    poet.refusal = httpx2.Response(400, json=refusal)
    asked = await client()
    with pytest.raises(openai.BadRequestError):
        await asked.responses.create(model="poet", input="moon")
    events = [event async for event in await asked.responses.create(model="poet", input="moon", stream=True)]
    assert [event.type for event in events] == ["response.created", "response.failed"]
    failed = events[-1]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert failed.response.error.code == "invalid_prompt"
    assert (await asked.responses.retrieve(failed.response.id)).status == "failed"


REFUSED = [
    ("response_format.json_schema.schema", "text.format.schema"),
    ("response_format", "text.format"),
    ("messages", "input"),
    ("tools.0.function.parameters", "tools.0.parameters"),
    ("max_tokens", "max_output_tokens"),
]


@pytest.mark.parametrize(("upstream", "sent"), REFUSED)
async def test_a_field_that_the_model_server_refuses_has_the_clients_name(
    client: Client, poet: Poet, upstream: str, sent: str
) -> None:
    problem = invalid_field(upstream, "is not taken").document
    poet.refusal = httpx2.Response(400, json=problem, headers={"Content-Type": "application/problem+json"})
    asked = await client()
    with pytest.raises(openai.BadRequestError) as error:
        await asked.responses.create(model="poet", input="moon")
    assert error.value.param == sent
    told: Any = [event async for event in await asked.responses.create(model="poet", input="moon", stream=True)]
    response = await asked.responses.create(model="poet", input="moon", background=True)

    async def failed() -> Any:
        found = await asked.responses.retrieve(response.id)
        return found if found.status == "failed" else None

    for one in (told[-1].response, await eventually(failed, "it has failed")):
        assert one.error.message == f"{sent}: is not taken"


async def test_too_long_an_input_has_openais_code(client: Client, poet: Poet) -> None:
    problem = field_problem([FieldError(field="messages", detail="has 300 tokens", code=CONTEXT_LENGTH)])
    poet.refusal = httpx2.Response(400, json=problem.document)
    asked = await client()
    with pytest.raises(openai.BadRequestError) as error:
        await asked.responses.create(model="poet", input="moon")
    assert (error.value.param, error.value.code) == ("input", "context_length_exceeded")
    told: Any = [event async for event in await asked.responses.create(model="poet", input="moon", stream=True)]
    assert told[-1].response.error.code == "context_length_exceeded"


async def test_a_field_that_another_may_not_stand_beside_has_the_clients_name(client: Client) -> None:
    tools: Any = [{"type": "function", "name": "f"}]
    with pytest.raises(openai.BadRequestError) as error:
        await (await client()).responses.create(
            model="poet", input="moon", tools=tools, text={"format": {"type": "json_object"}}
        )
    assert error.value.param == "tools"
    assert "beside text.format" in str(error.value)


async def test_a_key_makes_one_response(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    poet.finish.set()
    asked = await client(**store)
    key = {"Idempotency-Key": "k"}
    first = await asked.responses.create(model="poet", input="moon", extra_headers=key)
    again = await asked.responses.create(model="poet", input="moon", extra_headers=key)
    assert (again.id, again.output) == (first.id, first.output)
    assert len(poet.asked) == 1
    with pytest.raises(openai.UnprocessableEntityError):
        await asked.responses.create(model="poet", input="sun", extra_headers=key)


async def test_it_takes_from_the_share_of_its_caller(client: Client, poet: Poet, tmp_path: Any) -> None:
    poet.finish.set()
    keys = tmp_path / "keys"
    keys.write_text(entry("ann", "key-of-ann-1") + "\n" + entry("bob", "key-of-bob-1"))
    settings = {"callers": "keys", "callers_file": keys, "caller_requests_per_minute": 1}
    ann = await client(api_key="key-of-ann-1", **settings)
    response = await ann.responses.create(model="poet", input="moon")
    with pytest.raises(openai.RateLimitError):
        await ann.responses.create(model="poet", input="moon")
    bob = ann.with_options(api_key="key-of-bob-1")
    with pytest.raises(openai.NotFoundError):
        await bob.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        await bob.responses.delete(response.id)
    with pytest.raises(openai.BadRequestError) as error:
        await bob.responses.create(model="poet", input="more", previous_response_id=response.id)
    assert error.value.code == "previous_response_not_found"


async def test_while_the_model_is_loading_a_plain_request_waits(client: Client, poet: Poet) -> None:
    loading = {"type": problems.LOADING.uri, "title": "t", "status": 503, "detail": "d", "retry_after": 1}
    poet.refusal = httpx2.Response(503, json=loading, headers={"Content-Type": "application/problem+json"})
    asked = await client()
    waiting = asyncio.ensure_future(asked.responses.create(model="poet", input="moon"))
    await eventually(lambda: poet.asked, "the model server is asked")
    poet.refusal = None
    poet.finish.set()
    assert (await waiting).output_text == "春天"


async def test_a_plain_one_with_a_key_is_found_again_after_its_replica(
    serve: Callable[[ASGIApp], Awaitable[str]], poet: Poet, redis_url: str
) -> None:
    settings = Settings(models={"poet": "http://poet.test"}, grace_seconds=1, store_url=redis_url)
    drain = Drain()
    first = create_app(settings, httpx2.MockTransport(poet), drain=drain)
    second = create_app(settings, httpx2.MockTransport(poet))
    async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT) as http:

        async def ask(app: str) -> httpx2.Response:
            body = {"model": "poet", "input": "moon"}
            return await http.post(f"{app}/v1/responses", json=body, headers={"Idempotency-Key": "k"})

        leaving, staying = await serve(first), await serve(second)
        waiting = asyncio.ensure_future(ask(leaving))
        await eventually(lambda: poet.asked, "the model server is asked")
        drain.begin()
        answer = await waiting
        assert (answer.status_code, answer.json()["type"]) == (503, problems.UNAVAILABLE.uri)
        assert int(answer.headers["Retry-After"]) >= 1
        poet.finish.set()
        found = await ask(staying)
    assert (found.status_code, found.json()["status"]) == (200, "completed")
    assert found.json()["id"] in answer.json()["detail"]
    assert len(poet.asked) == 1
