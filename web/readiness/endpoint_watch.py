"""Watches the models' EndpointSlices at the API server of the pod's cluster.

As every client of Kubernetes does: a list, and from its resourceVersion on a watch, which the server ends now and then
and which goes on where it was. 410 says that this is too long ago: then the list is read again. What fails, because no
Role allows it perhaps, is logged once, nothing is reported meanwhile, and it is tried again with growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any

import httpx2
from pydantic import BaseModel

from web.callers.service_account import api_server, credentials, trusted_authorities
from web.readiness.endpoint_states import (
    SERVICE_LABEL,
    TYPE_LABEL,
    EndpointSlice,
    EndpointSliceList,
    EndpointStates,
    knative_services,
)

log = logging.getLogger(__name__)

WATCH_SECONDS = 120
"""How long one watch lasts: a turn of its loop."""

SILENCE_SECONDS = 15.0
"""Longest wait for an answer to begin, and for the end of a watch beyond WATCH_SECONDS."""

FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 1.0, 60.0
"""After the first failure, and at most. It doubles with each in a row."""

PAUSE_SECONDS = 1.0
"""Between two watches: what changes meanwhile is in the next one."""

LIST_BYTES = 16_777_216
EVENT_BYTES = 1_048_576
"""Most that is read of a list, and of an event."""


class _GoneError(Exception):
    """The resourceVersion is too old."""


class _Event(BaseModel):
    type: str
    object: dict[str, Any] = {}


class EndpointWatch:
    """Keeps `states` true. `address` is the API server's: the pod's token is sent there, and nowhere else."""

    def __init__(self, states: EndpointStates, namespace: str, address: str) -> None:
        self.states = states
        self._url = f"{address}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        names = ",".join(sorted(set(states.services.values())))
        self._selector = {"labelSelector": f"{TYPE_LABEL}=Private,{SERVICE_LABEL} in ({names})"}
        self._version = ""
        self._failures = 0

    async def turn(self) -> None:
        """One watch, to its end, after a list where that is needed. What fails is waited out."""
        try:
            async with httpx2.AsyncClient(
                verify=trusted_authorities(),
                headers=credentials(),
                timeout=SILENCE_SECONDS,
                trust_env=False,
            ) as client:
                if not self._version:
                    await self._list(client)
                await self._watch(client)
            await asyncio.sleep(PAUSE_SECONDS)
        except _GoneError:
            self._version = ""
            await asyncio.sleep(PAUSE_SECONDS)
        except (httpx2.HTTPError, OSError, ValueError) as error:
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        if self._failures == 0:
            log.warning("the EndpointSlices cannot be watched, states come from answers alone: %s", error)
        self._version = ""
        self.states.replace(())
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16), MOST_PAUSE_SECONDS)
        self._failures += 1
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _list(self, client: httpx2.AsyncClient) -> None:
        content = bytearray()
        async with client.stream("GET", self._url, params=self._selector) as answer:
            _check(answer)
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > LIST_BYTES:
                    raise ValueError(f"the list has more than {LIST_BYTES} bytes")
        found = EndpointSliceList.model_validate_json(bytes(content))
        self._version = found.metadata.resource_version
        self.states.replace(found.items)
        if self._failures:
            log.info("the EndpointSlices are watched again")
        self._failures = 0

    async def _watch(self, client: httpx2.AsyncClient) -> None:
        parameters: dict[str, Any] = {
            **self._selector,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": WATCH_SECONDS,
        }
        timeout = httpx2.Timeout(SILENCE_SECONDS, read=WATCH_SECONDS + SILENCE_SECONDS)
        async with client.stream("GET", self._url, params=parameters, timeout=timeout) as answer:
            if answer.status_code == HTTPStatus.GONE:
                raise _GoneError
            _check(answer)
            async for line in _lines(answer):
                self._take(_Event.model_validate_json(line))

    def _take(self, event: _Event) -> None:
        if event.type == "ERROR":
            if event.object.get("code") == HTTPStatus.GONE:
                raise _GoneError
            raise ValueError(f"the watch ends with {event.object.get('reason')}")
        one = EndpointSlice.model_validate(event.object)
        if event.type != "BOOKMARK":
            self.states.change(one, deleted=event.type == "DELETED")
        self._version = one.metadata.resource_version or self._version


def endpoint_watch(urls: Mapping[str, str | None]) -> EndpointWatch | None:
    """Of the models with these URLs; None where there is nothing to watch, which is logged."""
    address, (namespace, services) = api_server(), knative_services(urls)
    if address is None or not services:
        why = "this is no pod" if address is None else "no model has a URL like http://NAME.NAMESPACE.svc.cluster.local"
        log.warning("no EndpointSlices are watched: %s", why)
        return None
    if left_out := sorted(set(urls) - set(services)):
        log.info("of these models no EndpointSlices are watched: %s", ", ".join(left_out))
    return EndpointWatch(EndpointStates(services), namespace, address)


def _check(answer: httpx2.Response) -> None:
    if answer.status_code != HTTPStatus.OK:
        raise ValueError(f"the API server answers with status {answer.status_code}")


async def _lines(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """Each line; a ValueError where one is too long."""
    rest = b""
    async for part in answer.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > EVENT_BYTES:
            raise ValueError(f"an event has more than {EVENT_BYTES} bytes")
    if rest:
        raise ValueError("the watch ends within an event")
