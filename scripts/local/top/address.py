"""Where web is, and how many slots its models have: as scripts/run has written it, or as the flags say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from scripts.local.run_folder import RunFolder
from scripts.loopback import HOST

METRICS_PORT = 9464
"""Of web, unless it is told another one."""

LOCAL = ("localhost", HOST)


class NotFound(Exception):
    """No scripts/run can be taken, for the reason in this line."""


@dataclass(frozen=True)
class Address:
    url: str
    metrics_url: str | None
    """None where web serves no metrics."""
    slots: Mapping[str, int] = field(default_factory=dict)
    """Of the models of which that is known."""


def find_address(url: str | None, metrics_url: str | None) -> Address:
    """Read anew for each look, because scripts/run may be started again. Raises NotFound, a ValueError for a `url` that
    is none."""
    state: dict[str, Any] | None
    if url is None:
        state = _only_run()
        url = f"http://{HOST}:{state['port']}"
    else:
        url = complete(url)
        state = _run_at(url)
    if metrics_url is not None:
        metrics_url = complete(metrics_url)
    elif state is not None:
        metrics_url = state.get("metrics_url")
    else:
        host = urlsplit(url).hostname or ""
        metrics_url = f"http://{f'[{host}]' if ':' in host else host}:{METRICS_PORT}/metrics"
    models = state["models"] if state else {}
    slots = {name: model["slots"] for name, model in models.items() if model.get("slots")}
    return Address(url.rstrip("/"), metrics_url, slots)


def complete(url: str) -> str:
    """With its scheme; raises a ValueError where it can be no address of a server."""
    if any(mark in url for mark in "?#@"):  # it may be a secret, and is not repeated
        raise ValueError("no ?query, #fragment or user:password@ is taken; SHANGCAI_KEY may hold a caller's key")
    whole = url if "//" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        good = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        good = False
    if not good or not whole.isprintable() or " " in whole:
        raise ValueError(f"{url!r} is no address; http://{HOST}:8080 would be one")
    return whole


def _is_host(name: str) -> bool:
    if ":" in name:
        return bool(IPv6Address(name))
    return re.fullmatch(r"[\w.-]+", name) is not None


def _only_run() -> dict[str, Any]:
    """The state of the scripts/run on $PORT or 8080, else of the only one of this user."""
    usual = os.environ.get("PORT") or "8080"
    if usual.isdecimal() and (state := RunFolder(int(usual)).read()):
        return state
    running = [state for folder in RunFolder.all() if (state := folder.read())]
    if not running:
        raise NotFound("no scripts/run is running; --url says where web is")
    if len(running) > 1:
        ports = ", ".join(str(state["port"]) for state in running)
        raise NotFound(f"scripts/run is running on the ports {ports}; --url http://{HOST}:PORT says which is meant")
    return running[0]


def _run_at(url: str) -> dict[str, Any] | None:
    parts = urlsplit(url)
    return RunFolder(parts.port or 80).read() if parts.scheme == "http" and parts.hostname in LOCAL else None
