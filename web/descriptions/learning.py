"""Asks each model what it says of itself, once whenever it has woken up, and shares that with the other replicas.

Nobody is woken for it: a model is asked when it has just answered. What was heard last is kept in the store, for while
it sleeps.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2
from pydantic import OnErrorOmit, ValidationError

from contract import ModelStatus
from contract.fields import Omittable, StrictModel
from contract.models.description import DESCRIPTION_BYTES, ModelDescription, Refusable
from web.client.exchange import beginning
from web.descriptions.descriptions import Descriptions
from web.http.accept import JSON
from web.jobs.background_loops import BackgroundLoop, BackgroundLoops
from web.jobs.store import JobStore
from web.readiness.model_readiness import Origin, Readiness

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

log = logging.getLogger(__name__)

ASK_SECONDS = 10.0
"""Longest that asking a model may take. One that is too busy is asked again."""

READ_SECONDS = 10.0
"""Between two looks at what other replicas have heard."""

KEPT_SECONDS = 86_400.0
"""How long what was heard counts: a model that has slept since may be another one by now."""

RENEW_SECONDS = 3_600.0
"""After which a model that has not slept is asked again."""

RECENT_SECONDS = 10.0
"""So long after an answer a model is still awake, and asking it wakes nobody."""


class HeardDescription(ModelDescription):
    """Said by a model or another replica, of whatever version: fields to refuse that are unknown here are left out."""

    refuses: Omittable[list[OnErrorOmit[Refusable]]] = None


class _Kept(StrictModel):
    """As it is stored. `at` is in seconds since 1970, by the clock of the store."""

    at: float
    description: HeardDescription


class DescriptionLearning:
    """Keeps `descriptions` true."""

    def __init__(
        self,
        settings: Settings,
        client: httpx2.AsyncClient,
        store: JobStore,
        readiness: Mapping[str, Readiness],
        descriptions: Descriptions,
        background: BackgroundLoops | None = None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._store = store
        self._readiness = readiness
        self._descriptions = descriptions
        self._background = background or BackgroundLoops()
        self._due = set(readiness)
        self._heard: dict[str, float] = {}
        """When each was heard here, of `time.monotonic`."""
        self._wanted = asyncio.Event()
        self._loop: BackgroundLoop | None = None

    def open(self) -> None:
        for readiness in self._readiness.values():
            readiness.subscribe(self._note)
        self._loop = self._background.start("learning what the models are", self._turn)

    async def close(self) -> None:
        if self._loop is not None:
            await self._background.close(self._loop)

    def _note(self, status: ModelStatus, _origin: Origin) -> None:
        if status.state == "ready":
            self._wanted.set()
        else:
            self._due.add(status.name)

    async def _turn(self) -> None:
        self._wanted.clear()
        now = time.monotonic()
        self._due |= {name for name, heard in self._heard.items() if now - heard > RENEW_SECONDS}
        self._due |= {name for name, each in self._readiness.items() if each.state in ("asleep", "waking")}
        for model in [name for name in self._due if self._is_awake(name)]:
            self._due.discard(model)
            await self._ask(model)
        await self._read()
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            pass

    def _is_awake(self, model: str) -> bool:
        """Whether it has answered lately, and not fallen asleep since."""
        readiness = self._readiness[model]
        answered_at = readiness.observed_at
        if answered_at is None or readiness.state in ("asleep", "waking"):
            return False
        return time.monotonic() - answered_at < RECENT_SECONDS

    async def _ask(self, model: str) -> None:
        served = self._settings.models[model]
        if served.url is None:
            return
        description = None
        try:
            headers = {"Accept": JSON, **self._settings.authorization(model)}
            url = f"{served.url}{served.path}/models"
            async with (
                asyncio.timeout(ASK_SECONDS),
                self._client.stream("GET", url, headers=headers, timeout=ASK_SECONDS) as answer,
            ):
                body = await beginning(answer, 2 * DESCRIPTION_BYTES)
            if answer.status_code == HTTPStatus.OK:
                description = told(body, served.upstream_model or model)
        except ValueError as error:
            log.debug("%s does not say what it is: %s", model, error)
        except (httpx2.HTTPError, TimeoutError) as error:  # it may be busy
            log.debug("%s does not say what it is, and is asked again: %s", model, error)
            self._due.add(model)
            return
        self._heard[model] = time.monotonic()
        if description is not None:
            self._descriptions.learn(model, description)
            kept = _Kept(at=await self._store.now(), description=description)
            await self._store.documents.put(model, kept.model_dump_json())

    async def _read(self) -> None:
        oldest = await self._store.now() - KEPT_SECONDS
        for model, document in (await self._store.documents.all()).items():
            if model not in self._readiness:
                continue
            try:
                kept = _Kept.of_any_version(document)
            except ValidationError:
                log.debug("what is stored of %s is of another version", model)
                continue
            if kept.at >= oldest:
                self._descriptions.learn(model, kept.description)


def told(body: bytes, name: str) -> HeardDescription | None:
    """What OpenAI's list of models says of this one, and of another one where it is the only one; None where it is not
    there. Raises a ValueError for what is no such list. vLLM's list has a `max_model_len`, and nothing else of ours."""
    entries = json.loads(body)
    entries = entries.get("data") if isinstance(entries, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("its list of models is no such list")
    named = [entry for entry in entries if entry.get("id") == name] or entries
    if len(named) != 1:
        return None
    [entry] = named
    length = entry.get("max_model_len")
    if "limits" not in entry and isinstance(length, int) and length > 0:
        entry = {**entry, "limits": {"context_tokens": length}}
    return HeardDescription.of_any_version(json.dumps(entry))
