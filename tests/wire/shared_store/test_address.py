"""The forms of STORE_URL."""

from __future__ import annotations

import pytest

from wire.shared_store.address import StoreAddress, parse_address

NODES = (("a", 1), ("b", 26379))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        *(
            (url, StoreAddress("plain", plain=url))
            for url in (
                "redis://redis:6379/1",
                "redis://redis",
                "rediss://user:p%40ss@redis/0",
                "redis://[::1]:6379/0",
                "unix:///run/redis.sock",
                "unix:///run/redis.sock?db=3",
            )
        ),
        ("redis+sentinel://a:1,b/mymaster", StoreAddress("sentinel", nodes=NODES, service="mymaster")),
        (
            "rediss+sentinel://u:p%40ss@a:1,b/mymaster/3?sentinel_password=q",
            StoreAddress(
                "sentinel",
                nodes=NODES,
                tls=True,
                service="mymaster",
                database=3,
                username="u",
                password="p@ss",
                sentinel_password="q",
            ),
        ),
        ("redis+cluster://[::1]:7000,b", StoreAddress("cluster", nodes=(("::1", 7000), ("b", 6379)))),
        ("redis+cluster://:pw@a:1", StoreAddress("cluster", nodes=(("a", 1),), password="pw")),
    ],
)
def test_an_address_is_read(url: str, address: StoreAddress) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x",
        "redis:/",
        "redis://secret@x:port/0",
        "redis://secret@x/first",
        "http+sentinel://secret@a/mymaster",
        "redis+sentinel://secret@a,b",
        "redis+sentinel://secret@a,/mymaster",
        "redis+sentinel://secret@a:port/mymaster",
        "redis+cluster://secret@a/0",
        "unix://",
        "unix:///secret?db=first",
        "redis+swarm://secret@a",
    ],
)
def test_what_is_no_address_is_told_without_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis\+sentinel://host") as wrong:
        parse_address(url)
    assert "secret" not in str(wrong.value)
    assert wrong.value.__suppress_context__


def test_passwords_are_not_shown() -> None:
    for url in ("redis://:secret@x", "redis+sentinel://:secret@x/m?sentinel_password=secret"):
        assert "secret" not in repr(parse_address(url))
