"""Pictures, as the official client sees them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest

from web.app import create_app
from web.settings import Settings

Client = Callable[..., openai.AsyncOpenAI]
Painter = Callable[[httpx2.Request], httpx2.Response]
Web = Callable[..., httpx2.AsyncClient]

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def sent(request: httpx2.Request) -> Any:
    return json.loads(request.content)


async def test_pictures_come_in_base64(client: Client, seen: list[httpx2.Request]) -> None:
    beyond = {"steps": 2, "seed": 5, "negative_prompt": "dog"}
    answer = await client().images.generate(model="painter", prompt="cat", n=2, size="64x48", extra_body=beyond)
    assert answer.data is not None
    assert [base64.b64decode(picture.b64_json or "") for picture in answer.data] == [b"picture 0", b"picture 1"]
    assert [(picture.model_extra or {})["seed"] for picture in answer.data] == [5, 6]
    assert (answer.size, answer.output_format) == ("64x48", "png")
    asked = sent(seen[0])
    assert {name: asked[name] for name in beyond} == beyond
    assert (asked["n"], asked["size"]) == (2, "64x48")


async def test_without_a_model_the_first_that_paints_does(client: Client, seen: list[httpx2.Request]) -> None:
    await client().images.generate(prompt="cat")
    assert sent(seen[0])["model"] == "painter"


@pytest.mark.parametrize(
    ("prompt", "named", "host"),
    [
        ("a cat in oil", {}, "oils"),
        ("a cat in oil", {"model": None}, "oils"),
        ("a cat", {}, "painter"),
        ("a cat in oil", {"model": "painter"}, "painter"),
    ],
)
async def test_without_a_model_the_prompt_decides_which_one_paints(
    web: Web, seen: list[httpx2.Request], painter: Painter, prompt: str, named: dict[str, Any], host: str
) -> None:
    """OpenAI's own answers do not say which."""
    painters = {name: {"url": f"http://{name}.test", "kind": "image"} for name in ("painter", "oils")}
    models = {"poet": "http://poet.test", **painters, "oils": {**painters["oils"], "match": "oil"}}
    client, body = web(painter, models=models), {"prompt": prompt, **named}
    assert (await client.post("/v1/images/generations", json=body)).json()["model"] == host
    stream = (await client.post("/v1/images/generations", json={**body, "stream": True})).text
    assert f'"model":"{host}"' in stream
    assert [request.url.host for request in seen] == [f"{host}.test"] * 2


async def test_a_stream_has_previews_and_ends_with_the_pictures(client: Client) -> None:
    stream = await client().images.generate(model="painter", prompt="cat", stream=True, partial_images=1)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert [base64.b64decode(event.b64_json) for event in events] == [b"a preview", b"picture 0"]
    assert [event.size for event in events] == ["32x24", "64x48"]


@pytest.mark.parametrize(("size", "told"), [("auto", "auto"), ("96x64", "96x64")])
async def test_a_preview_whose_size_is_not_known_has_the_one_that_was_asked_for(
    client: Client,
    picture: Callable[..., dict[str, Any]],
    picture_stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
    size: Any,
    told: str,
) -> None:
    """Other runtimes say what they like."""
    previews = [{**picture(size=said), "type": "image_generation.partial_image"} for said in (None, "auto", "0x0", 7)]
    asked = client(lambda _: sse_answer(picture_stream(*previews, picture())))
    stream = await asked.images.generate(model="painter", prompt="cat", stream=True, partial_images=4, size=size)
    assert [event.size async for event in stream] == [told] * 4 + ["64x48"]


async def test_pictures_by_address(
    opened: Callable[..., Awaitable[httpx2.AsyncClient]], painter: Callable[[httpx2.Request], httpx2.Response]
) -> None:
    settings = Settings(models={"painter": {"url": "http://painter.test", "kind": "image"}})
    http_client: Any = await opened(create_app(settings, httpx2.MockTransport(painter)))
    client = openai.AsyncOpenAI(base_url="http://web.test/v1", api_key="none", http_client=http_client, max_retries=0)
    answer = await client.images.generate(model="painter", prompt="cat", n=2, response_format="url")
    assert answer.data is not None
    found = [(await http_client.get(picture.url or "")).content for picture in answer.data]
    assert found == [b"picture 0", b"picture 1"]


async def test_an_edit_sends_its_files(client: Client, seen: list[httpx2.Request]) -> None:
    await client().images.edit(
        model="painter", image=io.BytesIO(PNG), mask=io.BytesIO(PNG), prompt="cat", extra_body={"strength": 0.5}
    )
    asked = sent(seen[0])
    assert seen[0].url.path == "/openai/v1/images/edits"
    assert [base64.b64decode(asked[name]) for name in ("image", "mask")] == [PNG, PNG]
    assert asked["strength"] == 0.5


@pytest.mark.parametrize(("origin", "status"), [(None, 200), ("https://page.test", 200), ("https://evil.test", 403)])
async def test_other_sites_pages_send_no_form(web: Web, origin: str | None, status: int) -> None:
    """Browsers send a form at once, and ask nobody before."""
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": origin} if origin else {}
    fields, files = {"model": "painter", "prompt": "cat"}, {"image": PNG}
    asked = web(cors_origins=["https://page.test"])
    answer = await asked.post("/v1/images/edits", data=fields, files=files, headers=headers)
    assert answer.status_code == status
    assert origin != "https://evil.test" or answer.json()["error"]["code"] == "forbidden"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"style": "vivid"}, "style"),
        ({"size": "big"}, "size"),
        ({"response_format": "url", "stream": True}, "response_format"),
        ({"n": 9}, "n"),
        ({"model": "poet"}, "model"),
        ({"image": "x"}, "image"),
    ],
)
async def test_mistakes_are_named(web: Web, fields: dict[str, Any], param: str) -> None:
    answer = await web().post("/v1/images/generations", json={"model": "painter", "prompt": "cat"} | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_failure_in_a_stream_is_raised_by_the_client(
    client: Client, sse_answer: Callable[..., httpx2.Response]
) -> None:
    begun = {"type": "image_generation.progress", "step": 1, "of": 2}
    problem = {"type": "urn:shangcai:problem:out-of-memory", "title": "t", "status": 413, "detail": "no room"}
    events = ((begun["type"], begun), ("error", problem))
    body = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events)
    stream = await client(lambda _: sse_answer(body.encode())).images.generate(
        model="painter", prompt="cat", stream=True
    )
    with pytest.raises(openai.APIError, match="no room"):
        [event async for event in stream]


async def test_a_field_that_the_model_server_refuses_has_the_clients_name(
    web: Web, refused: Callable[[str], Callable[[httpx2.Request], httpx2.Response]]
) -> None:
    body = {"model": "painter", "prompt": "cat", "output_format": "webp"}
    answer = await web(refused("output_format")).post("/v1/images/generations", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "output_format")


async def test_where_nothing_paints_the_model_is_named(web: Web) -> None:
    answer = await web(models={"poet": "http://poet.test"}).post("/v1/images/generations", json={"prompt": "cat"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
