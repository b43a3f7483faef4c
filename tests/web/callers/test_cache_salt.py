"""What web tells a model server of whose texts may share what its cache holds."""

from __future__ import annotations

from collections.abc import Callable

import httpx2

from web.rest.cache_salt import CacheSalts

Web = Callable[..., httpx2.AsyncClient]
Bearer = Callable[[str], dict[str, str]]
HEADER = "X-Shangcai-Cache-Salt"


async def test_each_caller_has_a_salt_that_does_not_name_it(
    keyed: Web, bearer: Bearer, seen: list[httpx2.Request]
) -> None:
    client = keyed()
    for caller in ("alice", "bob", "alice"):
        await client.post("/generate", json={"prompt": "x"}, headers=bearer(caller) | {HEADER: "another's"})
    salts = [request.headers[HEADER] for request in seen]

    assert salts[0] == salts[2] != salts[1]
    assert [len(salt) for salt in salts] == [64, 64, 64]


async def test_there_is_none_where_callers_are_not_told_apart(web: Web, seen: list[httpx2.Request]) -> None:
    await web().post("/generate", json={"prompt": "x"}, headers={HEADER: "another's"})

    assert HEADER not in seen[0].headers


def test_a_salt_needs_the_secret() -> None:
    assert CacheSalts(None).headers("alice") != CacheSalts(None).headers("alice")
    assert CacheSalts(None).headers("events") == {}
