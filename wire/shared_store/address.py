"""Where the shared store is: the forms that STORE_URL may have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

FORMS = (
    "redis://host:port/0, rediss:// with TLS, unix:///path?db=0, redis+sentinel://host:port,host:port/mymaster/0, "
    "or redis+cluster://host:port,host:port"
)
"""What an address may look like. With `rediss+` the last two use TLS, too."""

_PORTS = {"sentinel": 26379, "cluster": 6379}
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(\d{1,5}))?")


@dataclass(frozen=True)
class StoreAddress:
    """A parsed address; `plain` is one that redis-py reads itself."""

    kind: Literal["plain", "sentinel", "cluster"]
    plain: str = field(default="", repr=False)
    nodes: tuple[tuple[str, int], ...] = ()
    """Sentinels, or nodes of the cluster: host and port."""
    tls: bool = False
    service: str = ""
    """What the sentinels call the master."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)


def parse_address(url: str) -> StoreAddress:
    """Raises ValueError, with what is allowed and without the address: it may hold a password."""
    try:
        return _parsed(url)
    except ValueError:
        raise ValueError(f"must be the address of a Redis or Valkey: {FORMS}") from None


def _parsed(url: str) -> StoreAddress:
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if parts.scheme == "unix":
        if not parts.path or not parse_qs(parts.query).get("db", ["0"])[0].isdigit():
            raise ValueError
        return StoreAddress("plain", plain=url)
    if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster"):
        raise ValueError
    if not kind:
        _database(parts.path.removeprefix("/"))
        if not parts.hostname or parts.port == 0:  # a port that is no number raises
            raise ValueError
        return StoreAddress("plain", plain=url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, database = parts.path.removeprefix("/").partition("/")
    if bool(service) != (kind == "sentinel"):  # a cluster has no databases
        raise ValueError
    return StoreAddress(
        "sentinel" if kind == "sentinel" else "cluster",
        nodes=tuple(_node(host, _PORTS[kind]) for host in hosts.split(",")),
        tls=scheme == "rediss",
        service=unquote(service),
        database=_database(database),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=parse_qs(parts.query).get("sentinel_password", [None])[0],
    )


def _node(text: str, port: int) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError
    return unquote(found[1].strip("[]")), int(found[2] or port)


def _database(text: str) -> int:
    if text and not text.isdigit():
        raise ValueError
    return int(text or 0)
