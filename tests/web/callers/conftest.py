"""Callers with keys, and an application that knows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from web.callers.key_file import entry

KEYS = {name: f"shangcai_{name * 8}" for name in ("alice", "bob")}


@pytest.fixture
def bearer() -> Callable[[str], dict[str, str]]:
    """The header with which a caller calls: alice or bob, or whoever has no key."""
    return lambda name: {"Authorization": f"Bearer {KEYS.get(name, name)}"}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "callers"
    path.write_text("# who may call\n\n" + "".join(entry(*pair) + "\n" for pair in KEYS.items()))
    return path


@pytest.fixture
def keyed(web: Callable[..., httpx2.AsyncClient], key_file: Path) -> Callable[..., httpx2.AsyncClient]:
    """A client, without a key, of an application that wants one."""

    def make(*handlers: Any, **settings: Any) -> httpx2.AsyncClient:
        known = {"callers": "keys", "callers_file": key_file, "callers_secret": "a secret of the tests"}
        return web(*handlers, **known, **settings)

    return make
