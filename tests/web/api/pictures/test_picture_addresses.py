"""Pictures by address: signed and for a while, so that an <img> can point at one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from contract import RequestLimits
from tests.support.waiting import eventually
from tests.support.web.job_requests import (
    ASYNC,
    CAT,
    LIVE,
    REQUEST,
    Front,
    Poet,
    ended,
    in_state,
    read,
    submit,
    watched,
)
from tests.support.wire.instances import without_instance
from web.callers.key_file import entry
from web.jobs.service import JobService
from web.openapi.document import describe
from web.settings import Settings

Slug = Callable[[httpx2.Response], str]
Handler = Callable[[httpx2.Request], httpx2.Response]

TWO = {**CAT, "n": 2, "seed": 7}
ETAG = f'"{hashlib.sha256(b"picture 0").hexdigest()[:32]}"'
FILES = [b"picture 0", b"picture 1"]


class Easel:
    """Where the painter waits after its first event, unless it is free."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.begun = 0


@pytest.fixture
def easel() -> Easel:
    return Easel()


@pytest.fixture
def painter(painter: Handler, easel: Easel) -> Handler:
    def answer(request: httpx2.Request) -> httpx2.Response:
        whole = painter(request).stream
        assert isinstance(whole, httpx2.AsyncByteStream)

        async def content() -> AsyncGenerator[bytes]:
            events = b"".join([part async for part in whole])
            end = events.index(b"\n\n") + 2
            yield events[:end]
            easel.begun += 1
            await easel.free.wait()
            yield events[end:]

        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())

    return answer


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    """Settings with two callers."""
    path = tmp_path / "keys"
    path.write_text("".join(entry(name, f"the key of {name}") + "\n" for name in ("alice", "bob")))
    return {"callers": "keys", "callers_file": path}


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer the key of {name}"}


async def addresses(client: httpx2.AsyncClient, location: str) -> list[dict[str, Any]]:
    """What a job tells of its pictures, once it is completed."""
    await ended(client, location)
    images: list[dict[str, Any]] = (await client.get(f"{location}?images=url")).json()["result"]["images"]
    return images


async def address(client: httpx2.AsyncClient) -> str:
    """The signed address of the first picture of a new job."""
    url: str = (await addresses(client, await submit(client, CAT)))[0]["url"]
    return url


# Who is told an address


async def test_a_job_tells_addresses_in_the_place_of_files(front: Front) -> None:
    client = await front()
    location = await submit(client, TWO)
    whole = await ended(client, location)
    assert (await client.get(f"{location}?images=data")).json() == whole
    answer = await client.get(f"{location}?images=url")
    assert answer.headers["content-type"] == "application/json"
    images = answer.json()["result"]["images"]
    assert [image.keys() for image in images] == [{"url", "expires_at", "media_type", "seed", "width", "height"}] * 2
    assert [image["seed"] for image in images] == [7, 8]
    of_files = [{"data": image["data"]} | images[number] for number, image in enumerate(whole["result"]["images"])]
    for image in of_files:
        del image["url"], image["expires_at"]
    assert {**answer.json()["result"], "images": of_files} == whole["result"]
    assert [image["url"].partition("?")[0] for image in images] == [
        f"http://web.test{location}/images/{number}" for number in (0, 1)
    ]
    assert [(await client.get(image["url"])).content for image in images] == FILES


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
@pytest.mark.parametrize("known", [False, True], ids=["open", "keys"])
async def test_every_replica_takes_what_another_has_signed(
    front: Front, redis_url: str, keys: dict[str, Any], shared: bool, known: bool
) -> None:
    settings: dict[str, Any] = ({"store_url": redis_url} if shared else {}) | (keys if known else {})
    client = await front(**settings)
    other = await front(**settings) if shared else client
    client.headers.update(bearer("alice") if known else {})
    assert (await other.get(await address(client))).content == b"picture 0"


async def test_a_plain_request_is_answered_addresses(front: Front) -> None:
    client = await front()
    answer = await client.post("/generate?images=url", json=TWO)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["location"] == f"/generations/{answer.json()['id']}"
    assert [(await client.get(image["url"])).content for image in answer.json()["images"]] == FILES
    described = describe("1", {"painter": "image"}, RequestLimits())
    schema = {"$ref": "#/components/schemas/Result", "components": described["components"]}
    Draft202012Validator(schema).validate(answer.json())


async def test_a_plain_request_that_is_left_is_cancelled(front: Front, keys: dict[str, Any], easel: Easel) -> None:
    easel.free.clear()
    client = await front(sockets=True, **keys)
    client.headers.update(bearer("alice"))
    asked = asyncio.create_task(client.post("/generate?images=url", json=CAT))
    await eventually(lambda: easel.begun, "it is painted")
    asked.cancel()

    async def cancelled() -> bool:
        [job] = (await client.get("/generations")).json()["generations"]
        return bool(job["state"] == "cancelled")

    await eventually(cancelled, "it is cancelled")


@pytest.mark.parametrize("headers", [LIVE, {**LIVE, **ASYNC}, {**LIVE, "Idempotency-Key": "k"}], ids=str)
async def test_streams_end_with_addresses(front: Front, headers: dict[str, str]) -> None:
    client = await front()
    answer = await client.post("/generate?images=url", json=CAT, headers=headers)
    _, name, result = read(answer.text)[-1]
    assert name == "result"
    assert (await client.get(result["images"][0]["url"])).content == b"picture 0"


async def test_the_stream_of_a_job_ends_with_addresses_where_it_is_asked_for_them(front: Front) -> None:
    client = await front()
    location = await submit(client, CAT)
    await ended(client, location)
    found = await watched(client, f"{location}?images=url")
    assert (await client.get(found[-1][2]["images"][0]["url"])).content == b"picture 0"
    again = await watched(client, f"{location}?images=url", found[-2][0])
    assert [name for _, name, _ in again] == ["result"]
    assert "url" in again[0][2]["images"][0]
    assert "data" in (await watched(client, location))[-1][2]["images"][0]


async def test_a_text_has_no_pictures(front: Front, poet: Poet, slug: Slug) -> None:
    poet.finish.set()
    client = await front()
    assert (await client.post("/generate?images=url", json=REQUEST)).json()["text"] == "春天"
    location = await submit(client)
    whole = await ended(client, location)
    assert (await client.get(f"{location}?images=url")).json() == whole
    assert (await watched(client, f"{location}?images=url"))[-1][2] == whole["result"]
    answer = await client.get(f"{location}/images/0")
    assert (answer.status_code, slug(answer)) == (404, "not-found")
    assert answer.json()["detail"] == "This generation is a text; it has no pictures."


@pytest.mark.parametrize("query", ["images=", "images=URL", "images=x", "images=url&images=url"])
async def test_another_value_is_refused(front: Front, slug: Slug, query: str) -> None:
    client = await front()
    location = await submit(client, CAT)
    for answer in (
        await client.get(f"{location}?{query}"),
        await client.post(f"/generate?{query}", json=CAT),
        await client.post(f"/generate?{query}", json=REQUEST),
    ):
        assert (answer.status_code, slug(answer)) == (400, "invalid-field")
        assert [error["field"] for error in answer.json()["errors"]] == ["images"]


# What it begins with


@pytest.mark.parametrize(
    ("settings", "headers", "base"),
    [
        ({}, {"Host": "x.example:8080"}, "http://x.example:8080"),
        ({}, {"Host": "[::1]:8080"}, "http://[::1]:8080"),
        ({"root_path": "/shangcai"}, {}, "http://web.test/shangcai"),
        ({"public_url": "https://x.example/shangcai/", "root_path": "/shangcai"}, {}, "https://x.example/shangcai"),
        ({"public_url": "https://x.example"}, {"X-Forwarded-Host": "evil.example"}, "https://x.example"),
        ({}, {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}, "http://web.test"),
        (
            {"trusted_hops": ["127.0.0.0/8"]},
            {"X-Forwarded-Host": "x.example", "X-Forwarded-Proto": "https, http"},
            "https://x.example",
        ),
        ({"trusted_hops": ["127.0.0.0/8"]}, {"X-Forwarded-Proto": "https"}, "https://web.test"),
        ({"trusted_hops": ["127.0.0.0/8"]}, {"X-Forwarded-Proto": "javascript"}, ""),
        ({"root_path": "/shangcai"}, {"Host": 'x"/<script>'}, "/shangcai"),
    ],
)
async def test_it_begins_with_what_clients_reach(
    front: Front, settings: dict[str, Any], headers: dict[str, str], base: str
) -> None:
    client = await front(**settings)
    answer = await client.post("/generate?images=url", json=CAT, headers=headers)
    [image] = answer.json()["images"]
    assert image["url"].partition("?")[0] == f"{base}/generations/{answer.json()['id']}/images/0"


def test_a_public_url_has_the_prefix_of_all_paths() -> None:
    with pytest.raises(ValidationError, match="public_url: must end with root_path, /shangcai"):
        Settings(models={"poet": "http://poet.test"}, public_url="https://x.example", root_path="/shangcai")


# Who has an address


async def test_an_address_is_served_as_a_file_that_stays(front: Front) -> None:
    client = await front(sockets=True, picture_url_seconds=600)
    url = await address(client)
    answer = await client.get(url)
    assert (answer.status_code, answer.content) == (200, b"picture 0")
    headers = dict(answer.headers)
    private, age, immutable = headers.pop("cache-control").split(", ")
    assert (private, immutable) == ("private", "immutable")
    assert 0 < int(age.removeprefix("max-age=")) <= 600
    for name in ("date", "server", "x-request-id", "x-seed"):
        headers.pop(name, None)
    assert headers.pop("content-disposition").startswith('inline; filename="painter-')
    assert headers == {
        "content-type": "image/png",
        "content-length": "9",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "etag": ETAG,
        "vary": "Accept",
        "x-model": "painter",
        "x-steps": "20",
        "x-understood": "cat",
    }
    head = await client.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "9")
    known = await client.get(url, headers={"If-None-Match": ETAG})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", ETAG)
    assert "immutable" in known.headers["cache-control"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "image/webp"),
        ("application/json", "image/webp"),
        ("application/octet-stream", "application/octet-stream"),
    ],
)
async def test_the_form_is_that_of_the_file(front: Front, accept: str, media_type: str) -> None:
    client = await front()
    answer = await client.post("/generate?images=url", json={**CAT, "format": "webp"})
    file = await client.get(answer.json()["images"][0]["url"], headers={"Accept": accept})
    assert (file.content, file.headers["content-type"]) == (b"picture 0", media_type)


async def check_expiry(client: httpx2.AsyncClient, seconds: float) -> None:
    """That an address which is told now is good for so long, but for fractions of a second."""
    before = time.time()
    [image] = (await client.post("/generate?images=url", json=CAT)).json()["images"]
    expires = datetime.fromisoformat(image["expires_at"]).timestamp()
    assert before + seconds - 2 <= expires <= time.time() + seconds


async def test_it_expires(front: Front, slug: Slug, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await front(picture_url_seconds=600)
    await check_expiry(client, 600)
    [image] = (await client.post("/generate?images=url", json=CAT)).json()["images"]
    later = time.time() + 601

    async def now(_jobs: JobService) -> float:
        return later

    monkeypatch.setattr(JobService, "now", now)
    answer = await client.get(image["url"])
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
    assert answer.json()["detail"].startswith("This address has expired.")


async def test_it_expires_with_its_job_at_the_latest(front: Front) -> None:
    await check_expiry(await front(picture_url_seconds=600, job_keep_seconds=60), 60)


async def test_it_is_gone_with_its_job(front: Front, slug: Slug) -> None:
    client = await front()
    url = await address(client)
    assert (await client.delete(httpx2.URL(url).path.rpartition("/images/")[0])).status_code == 204
    assert slug(await client.get(url)) == "not-found"


async def test_nothing_of_an_address_can_be_changed(front: Front, keys: dict[str, Any], slug: Slug) -> None:
    client = await front(**keys)
    client.headers.update(bearer("alice"))
    mine, other = [(await addresses(client, await submit(client, TWO))) for _ in range(2)]
    url, signature = httpx2.URL(mine[0]["url"]), httpx2.URL(mine[0]["url"]).params["signature"]
    del client.headers["Authorization"]
    assert (await client.get(url)).status_code == 200
    changed = [
        url.copy_set_param("expires", str(int(url.params["expires"]) + 1)),
        url.copy_set_param("expires", "0"),
        url.copy_set_param("expires", "x"),
        url.copy_remove_param("expires"),
        url.copy_set_param("signature", ("b" if signature[0] == "a" else "a") + signature[1:]),
        url.copy_set_param("signature", signature[:-1]),
        url.copy_set_param("signature", ""),
        url.copy_set_param("signature", "\u00e9\x00"),
        url.copy_with(path=url.path.replace("images/0", "images/1")),
        url.copy_with(path=url.path.replace("images/0", "images/00")),
        url.copy_with(path=httpx2.URL(other[0]["url"]).path),
        url.copy_with(path="/generations/unknown/images/0"),
    ]
    refused = [await client.get(one) for one in changed]
    assert {(answer.status_code, slug(answer)) for answer in refused} == {(403, "forbidden")}
    assert len({answer.json()["detail"] for answer in refused}) == 1, "what is there is not told"
    job = url.path.rpartition("/images/")[0]
    for path in (url.copy_remove_param("signature"), url.copy_with(path=job), f"{url.path}?expires=1"):
        assert slug(await client.get(path)) == "unauthorized"
    assert slug(await client.request("DELETE", url.copy_with(path=job))) == "unauthorized"
    assert slug(await client.post(url)) == "unauthorized"


async def test_another_secret_has_signed_nothing(front: Front, redis_url: str, slug: Slug) -> None:
    client = await front(store_url=redis_url, callers_secret="a secret of the tests")
    other = await front(store_url=redis_url, callers_secret="another one of the tests")
    url = await address(client)
    assert slug(await other.get(url)) == "forbidden"
    assert (await client.get(url)).content == b"picture 0"


async def test_a_page_of_another_site_can_show_it(front: Front, keys: dict[str, Any]) -> None:
    client = await front(cors_origins=["https://x.example"], **keys)
    client.headers.update(bearer("alice"))
    url = await address(client)
    page = {"Origin": "https://x.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}
    answer = await client.get(url, headers=page)
    assert answer.headers["access-control-allow-origin"] == "https://x.example"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    own = await client.get(httpx2.URL(url).path)
    assert own.headers["cross-origin-resource-policy"] == "same-origin"


# Its caller needs none


async def test_its_caller_gets_a_file_without_a_signature(front: Front, keys: dict[str, Any], slug: Slug) -> None:
    client = await front(**keys)
    location = await submit_as(client, "alice", TWO)
    for number, file in enumerate(FILES):
        answer = await client.get(f"{location}/images/{number}", headers=bearer("alice"))
        assert (answer.content, answer.headers["cache-control"]) == (file, "private, no-cache")
    theirs = await client.get(f"{location}/images/0", headers=bearer("bob"))
    unknown = await client.get("/generations/unknown/images/0", headers=bearer("bob"))
    assert slug(theirs) == "not-found"
    assert without_instance(theirs) == without_instance(unknown)


async def submit_as(client: httpx2.AsyncClient, name: str, request: dict[str, Any]) -> str:
    answer = await client.post("/generate?images=url", json=request, headers=bearer(name))
    location: str = answer.headers["location"]
    return location


@pytest.mark.parametrize("number", ["2", "7", "-1", "x", "00", "1.0", "\u0661", "9" * 5_000])
async def test_a_number_that_is_not_there(front: Front, slug: Slug, number: str) -> None:
    client = await front()
    location = await submit(client, TWO)
    await ended(client, location)
    answer = await client.get(f"{location}/images/{number}")
    assert (answer.status_code, slug(answer)) == (404, "not-found")
    assert "0" in answer.json()["detail"]


async def test_a_job_that_has_not_ended_has_none_yet(front: Front, slug: Slug, easel: Easel) -> None:
    easel.free.clear()
    client = await front()
    location = await submit(client, CAT)
    await in_state(client, location, "running")
    answer = await client.get(f"{location}/images/0")
    assert (answer.status_code, slug(answer)) == (404, "not-found")
    assert answer.json()["detail"] == "This generation is running; it has its pictures once it is completed."
    assert int(answer.headers["retry-after"]) >= 1
    assert (await client.delete(location)).json()["state"] == "cancelled"
    assert slug(await client.get(f"{location}/images/0")) == "cancelled"
    assert (await client.get(f"{location}?images=url")).json()["error"]["status"] == 410
