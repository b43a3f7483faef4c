"""Delivers the ends of jobs: claims what is due, makes an attempt, and writes down what has become of it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from contract import ProblemError, Webhook, WebhookDelivery
from contract.cloudevents import written
from web.jobs.background_loops import BackgroundLoop, BackgroundLoops
from web.metrics import WEBHOOK, WEBHOOKS
from web.webhooks.end_event import end_event, signature_headers, webhook_id
from web.webhooks.sender import NotAnswered, WebhookSender

if TYPE_CHECKING:
    from web.jobs.due_list import DueDelivery
    from web.jobs.record import JobRecord
    from web.jobs.results import Results
    from web.jobs.store import JobStore
    from web.settings import Settings
    from web.webhooks.policy import WebhookPolicy

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Between two looks at what is due, where nothing was."""

MOST_AT_ONCE = 32
"""Most attempts of this replica at a time."""

MOST_PER_HOST = 4
"""Most of them to one host and port: one that is slow leaves room for the others."""

BUSY_SECONDS = 1.0
"""About how long what is due to a host with so many waits here until it is looked at again; longer where there is much
more of it."""

MOST_RETRY_SECONDS = 300.0
"""Longest wait between two attempts, about. It doubles with each."""

LEASE_SECONDS = 5.0
"""How much longer a claim lasts than an attempt: for what is read and written around it."""

CLOSE_SECONDS = 2.0
"""Longest that closing waits for attempts. What is left is delivered by another replica."""

GONE = 410
"""By this status a receiver says that it wants no more."""

_Host = tuple[str, int]


class WebhookDeliveries:
    """At least once: an attempt whose replica dies is made again, with the same id. Nothing at all where no host is
    allowed. `sender` takes the place of the network in tests."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        results: Results,
        policy: WebhookPolicy,
        background: BackgroundLoops,
        sender: WebhookSender | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._results = results
        self._policy = policy
        self._background = background
        self._sender = sender
        self._loop: BackgroundLoop | None = None
        self._attempts: dict[asyncio.Task[None], DueDelivery] = {}
        self._of_host: Counter[_Host] = Counter()
        self._turned_away: Counter[_Host] = Counter()
        """How many each host had no place for since it last had one."""

    def open(self) -> None:
        if self._settings.webhook_hosts:
            self._sender = self._sender or WebhookSender(self._policy, self._settings.webhook_seconds)
            self._loop = self._background.start("the delivery of webhooks", self._turn)

    async def close(self) -> None:
        if self._loop is not None:
            await self._background.close(self._loop)
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=CLOSE_SECONDS)
        left = dict(self._attempts)
        for attempt in left:
            attempt.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_SECONDS)
        with suppress(ProblemError):  # each has a lease, too
            for delivery in left.values():
                await self._store.due.settle(delivery, await self._store.now())

    async def _turn(self) -> None:
        room = MOST_AT_ONCE - len(self._attempts)
        if room <= 0:
            await asyncio.wait(self._attempts, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return
        lease = self._settings.webhook_seconds + LEASE_SECONDS
        claimed = await self._store.due.claim(await self._store.now(), lease, room)
        for delivery in claimed:
            await self._begin(delivery)
        if not claimed:
            await asyncio.sleep(POLL_SECONDS)

    async def _begin(self, delivery: DueDelivery) -> None:
        """Make an attempt, in a task of its own. One after the other is read, as a result may be large."""
        record = await self._store.get(delivery.job)
        webhook = None if record is None else record.webhook
        if record is None or webhook is None or self._is_over(webhook):
            await self._store.due.settle(delivery)
            return
        if record.ended is None:  # its deadline has just passed: it is about to be ended, and is due then
            return
        host = self._host(webhook.url)
        if self._of_host[host] >= MOST_PER_HOST:
            self._turned_away[host] += 1
            await self._again(delivery, BUSY_SECONDS * (1 + self._turned_away[host] / MOST_AT_ONCE))
            return
        self._turned_away.pop(host, None)
        try:
            base = self._settings.public_url or self._settings.root_path
            headers, body = await end_event(record, self._results, self._settings.event_source, base)
        except Exception:  # it must not keep others from being delivered
            log.exception("job %s: its end cannot be written as an event", record.id)
            await self._again(delivery, MOST_RETRY_SECONDS)
            return
        record = replace(record, request="", outcome=None)
        self._of_host[host] += 1
        attempt = asyncio.create_task(self._deliver(delivery, record, webhook, headers, body))
        self._attempts[attempt] = delivery
        attempt.add_done_callback(lambda done: self._done(done, host))

    def _done(self, attempt: asyncio.Task[None], host: _Host) -> None:
        del self._attempts[attempt]
        self._of_host[host] -= 1
        if not self._of_host[host]:
            del self._of_host[host]
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            log.error("an attempt to deliver failed", exc_info=error)

    async def _deliver(
        self, delivery: DueDelivery, record: JobRecord, webhook: Webhook, headers: dict[str, str], body: bytes
    ) -> None:
        key = self._policy.signing_key(record.caller)
        tried = len(webhook.deliveries)
        try:
            if key is None:  # it was there when the job was made, and may be in the next version of the file
                log.warning("job %s: nothing to sign its webhook with", record.id)
                await self._again(delivery, MOST_RETRY_SECONDS)
                return
            headers |= signature_headers(key, webhook_id(record), int(time.time()), body)
            with WEBHOOK.time():
                status, error = await self._post(webhook.url, headers, body)
            now = await self._store.now()
            attempt = WebhookDelivery(at=written(now), status=status, error=error)
            delivered = status is not None and 200 <= status < 300
            noted = webhook.model_copy(update={"deliveries": [*webhook.deliveries, attempt], "delivered": delivered})
            outcome = "delivered" if delivered else "given_up" if self._is_over(noted) else "failed"
            WEBHOOKS.labels(outcome).inc()
            await self._store.note_webhook(record, noted)
            if self._is_over(noted):
                if not delivered:
                    log.warning("job %s: its webhook is given up after %d attempts", record.id, tried + 1)
                await self._store.due.settle(delivery)
            else:
                wait = self._settings.webhook_retry_seconds * 2.0**tried
                await self._again(delivery, min(wait, MOST_RETRY_SECONDS))
        except ProblemError as error:
            log.warning("job %s: the delivery of its webhook is left to its lease: %s", record.id, error)

    def _host(self, url: str) -> _Host:
        try:
            target = self._policy.target(url)
        except ValueError:
            return "", 0  # it is allowed no longer, which the attempt finds out, too
        return target.host, target.port

    def _is_over(self, webhook: Webhook) -> bool:
        """Whether no further attempt is to be made."""
        gone = any(each.status == GONE for each in webhook.deliveries)
        return webhook.delivered or gone or len(webhook.deliveries) >= self._settings.webhook_attempts

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int | None, str | None]:
        """The status of the answer, or why there is none; both where it would lead elsewhere."""
        assert self._sender is not None
        try:
            status = await self._sender.post(url, headers, body)
        except NotAnswered as error:
            return None, str(error)
        return status, "redirects are not followed" if 300 <= status < 400 else None

    async def _again(self, delivery: DueDelivery, seconds: float) -> None:
        jitter = random.uniform(0.75, 1.25)
        await self._store.due.settle(delivery, await self._store.now() + seconds * jitter)
