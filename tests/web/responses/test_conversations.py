"""Conversations that go on from an earlier response, and what is kept of each."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from tests.support.waiting import eventually
from tests.support.web.job_requests import Poet

Client = Callable[..., Awaitable[openai.AsyncOpenAI]]


def turns(poet: Poet) -> list[tuple[str, str]]:
    """What the model server was asked last."""
    return [(turn["role"], turn["content"]) for turn in json.loads(poet.asked[-1].content)["messages"]]


async def test_a_conversation_goes_on_without_the_earlier_instructions(
    client: Client, poet: Poet, store: dict[str, Any]
) -> None:
    poet.finish.set()
    asked = await client(**store)
    first = await asked.responses.create(model="poet", input="one", instructions="Rhyme.")
    second = await asked.responses.create(model="poet", input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    await asked.responses.delete(first.id)
    await asked.responses.create(model="poet", input="three", previous_response_id=second.id, instructions="Shout.")
    assert turns(poet) == [
        ("system", "Shout."),
        ("user", "one"),
        ("assistant", "春天"),
        ("user", "two"),
        ("assistant", "春天"),
        ("user", "three"),
    ]
    items = [item async for item in await asked.responses.input_items.list(second.id, order="asc")]
    assert [item.type for item in items] == ["message", "reasoning", "message", "message"]


async def test_the_items_are_listed_page_by_page(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client()
    items: Any = [{"role": "user", "content": str(number)} for number in range(5)]
    response = await asked.responses.create(model="poet", input=items)

    async def texts(**query: Any) -> str:
        found: Any = [item async for item in asked.responses.input_items.list(response.id, **query)]
        return "".join(item.content[0].text for item in found)

    assert await texts(limit=2) == "43210"
    assert await texts(limit=2, order="asc") == "01234"
    page = await asked.responses.input_items.list(response.id, limit=2, order="asc")
    assert (len(page.data), page.has_more) == (2, True)
    for query in ({"limit": 101}, {"order": "up"}, {"after": "nothing"}):
        with pytest.raises(openai.BadRequestError):
            await asked.responses.input_items.list(response.id, **query)


async def test_items_are_referred_to(client: Client, poet: Poet) -> None:
    """As the Vercel AI SDK does it."""
    poet.finish.set()
    asked = await client()
    first = await asked.responses.create(model="poet", input="one")
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        *({"type": "item_reference", "id": item.id} for item in first.output),
        {"role": "user", "content": "two"},
    ]
    await asked.responses.create(model="poet", input=items)
    assert turns(poet) == [("user", "one"), ("assistant", "春天"), ("user", "two")]


async def test_output_comes_back_as_input(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client()
    first = await asked.responses.create(model="poet", input="one", store=False)
    items: Any = [{"role": "user", "content": "one"}, *first.output, {"role": "user", "content": "two"}]
    await asked.responses.create(model="poet", input=items, store=False)
    assert turns(poet) == [("user", "one"), ("assistant", "春天"), ("user", "two")]


async def test_nothing_goes_on_from_one_that_is_unknown_or_has_no_answer(client: Client, poet: Poet) -> None:
    asked = await client()
    with pytest.raises(openai.BadRequestError, match="Previous response with id 'resp_1' not found") as error:
        await asked.responses.create(model="poet", input="two", previous_response_id="resp_1")
    assert (error.value.code, error.value.param) == ("previous_response_not_found", "previous_response_id")
    first = await asked.responses.create(model="poet", input="one", background=True)
    with pytest.raises(openai.BadRequestError, match="there is no answer to go on from"):
        await asked.responses.create(model="poet", input="two", previous_response_id=first.id)


async def test_a_call_that_was_cut_is_not_gone_on_from(client: Client, stream: Callable[..., bytes]) -> None:
    calls = [
        {"index": number, "id": f"call_{number}", "type": "function", "function": {"name": "f", "arguments": arguments}}
        for number, arguments in enumerate(["{}", '{"a": "天'])
    ]
    cut = Poet(stream("Look:", calls=calls, finish_reason="length"))
    cut.finish.set()
    asked = await client(cut)
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    events = [event async for event in await asked.responses.create(model="poet", input="x", tools=tools, stream=True)]
    done: list[Any] = [event.item for event in events if event.type == "response.output_item.done"]
    last: Any = events[-1]
    assert (last.type, [item.status for item in done]) == (
        "response.incomplete",
        ["completed", "completed", "incomplete"],
    )
    assert {item.id: item for item in last.response.output} == {item.id: item for item in done}
    output: Any = {"type": "function_call_output", "call_id": "call_0", "output": "1"}
    await asked.responses.create(model="poet", input=[output], tools=tools, previous_response_id=last.response.id)
    [*_, called, answer] = json.loads(cut.asked[-1].content)["messages"]
    assert ([call["id"] for call in called["tool_calls"]], answer["tool_call_id"]) == (["call_0"], "call_0")
    items: Any = [{"type": "item_reference", "id": done[-1].id}, {"role": "user", "content": "more"}]
    with pytest.raises(openai.BadRequestError, match="a call that was cut") as error:
        await asked.responses.create(model="poet", input=items, tools=tools)
    assert error.value.param == "input.0.id"


async def test_arguments_that_are_no_json_are_named_by_what_brings_them(
    client: Client, stream: Callable[..., bytes], store: dict[str, Any]
) -> None:
    """Other servers hold no call to JSON."""
    call = {"index": 0, "id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{'a': 天}"}}
    poet = Poet(stream("Look:", calls=(call,), finish_reason="tool_calls"))
    poet.finish.set()
    asked = await client(poet, **store)
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    first = await asked.responses.create(model="poet", input="x", tools=tools)
    message, called = first.output
    output = {"type": "function_call_output", "call_id": "call_0", "output": "1"}

    async def refused(*items: Any, **more: Any) -> str | None:
        with pytest.raises(openai.BadRequestError, match="JSON") as error:
            await asked.responses.create(model="poet", input=list(items), tools=tools, **more)
        return error.value.param

    assert await refused(output, previous_response_id=first.id) == "previous_response_id"
    assert await refused({"type": "item_reference", "id": called.id}, output) == "input.0.id"
    assert await refused(called, output) == "input.0.arguments"
    referred: Any = [{"type": "item_reference", "id": message.id}, {"role": "user", "content": "more"}]
    await asked.responses.create(model="poet", input=referred, tools=tools)
    assert turns(poet) == [("assistant", "Look:"), ("user", "more")]


async def test_a_conversation_is_bounded(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client(max_prompt_chars=10)
    first = await asked.responses.create(model="poet", input="12345678")
    with pytest.raises(openai.BadRequestError, match="at most 10 characters together") as error:
        await asked.responses.create(model="poet", input="9", previous_response_id=first.id)
    assert error.value.param == "input"


async def test_what_is_kept_of_it_is_bounded(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client(body_bytes=2_000)
    items: Any = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": json.dumps("x" * 1_200)}]
    first = await asked.responses.create(model="poet", input=items)
    with pytest.raises(openai.BadRequestError, match="at most 2000 bytes as JSON"):
        await asked.responses.create(model="poet", input=items, previous_response_id=first.id)


async def test_it_is_forgotten_after_its_own_time(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    poet.finish.set()
    asked = await client(**store, response_seconds=0.05)
    response = await asked.responses.create(model="poet", input="one")

    async def forgotten() -> str:
        try:
            await asked.responses.retrieve(response.id)
        except openai.NotFoundError as error:
            return str(error)
        return ""

    assert "forgotten 0.05 s after its end" in await eventually(forgotten, "it is forgotten")


async def test_it_is_deleted(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    asked = await client(**store)
    response = await asked.responses.create(model="poet", input="one", background=True)
    answer: Any = await asked.delete(f"/responses/{response.id}", cast_to=object)
    assert answer == {"id": response.id, "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await asked.responses.retrieve(response.id)


async def test_only_one_in_the_background_is_cancelled(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client()
    response = await asked.responses.create(model="poet", input="one")
    with pytest.raises(openai.BadRequestError, match="only a response in the background can be cancelled"):
        await asked.responses.cancel(response.id)


async def test_other_sites_pages_cancel_nothing(client: Client, poet: Poet) -> None:
    """Without a body browsers send it at once, and ask nobody before."""
    asked = await client(cors_origins=["https://page.test"])
    response = await asked.responses.create(model="poet", input="one", background=True)
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.test"}
    with pytest.raises(openai.PermissionDeniedError):
        await asked.responses.cancel(response.id, extra_headers=headers)
    headers["Origin"] = "https://page.test"
    assert (await asked.responses.cancel(response.id, extra_headers=headers)).status == "cancelled"


@pytest.mark.parametrize("id", ["resp_0", "0" * 32, f"resp_{'0' * 32}", "春"])
async def test_an_unknown_one(client: Client, id: str) -> None:
    asked = await client()
    with pytest.raises(openai.NotFoundError, match="There is no response of this id"):
        await asked.responses.retrieve(id)


async def test_a_job_that_is_no_response_is_not_found(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client()
    job: Any = await asked.post(
        "../generate", cast_to=object, body={"prompt": "x"}, options={"headers": {"Prefer": "respond-async"}}
    )
    with pytest.raises(openai.NotFoundError):
        await asked.responses.retrieve(f"resp_{job['id']}")
