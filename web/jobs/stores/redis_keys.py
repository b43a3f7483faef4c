"""What is stored in Redis: keys, channels, fields and their values.

Replicas of different versions share a Redis while a deployment is rolled out, so what stands here stays readable in
both directions.

| key | type | holds |
|---|---|---|
| `shangcai:job:ID` | hash | the record without its id, and what is listed below |
| `shangcai:log:ID` | stream | one entry per event: `event`, `data`; of the last one `data` is empty, see `outcome` |
| `shangcai:queue:MODEL` | stream | one entry per queued or running job: `job`, `caller`, `cost`; see `redis_queue` |
| `shangcai:waiting:MODEL` | sorted set | entries that wait, each after its caller's name; in the order of these |
| `shangcai:turns:MODEL` | sorted set | callers that wait or are in debt, by the round in which each is next |
| `shangcai:rounds:MODEL` | hash | `round`, the present one, and `cost:CALLER`, what waits of each |
| `shangcai:caller:NAME` | sorted set | the cursors of a caller's jobs, all with the score 0: see `redis_listing` |
| `shangcai:schema` | string | the version of all this; absent, it is 1 |
| `shangcai:secret` | string | web's own secret, where none is given; whoever needs it first draws it |
| `shangcai:models` | hash | what each model has said of itself, as JSON, and when: see `web.descriptions` |
| `shangcai:open` | sorted set | jobs that have not ended, by their deadline |
| `shangcai:open-bytes` | hash | the bytes of each open job's request, and `total` |
| `shangcai:ended-jobs` | sorted set | ended jobs, by when; one that is kept longer than others, so much later |
| `shangcai:ended-bytes` | hash | the bytes of each, and `total` |
| `shangcai:due` | sorted set | jobs with a webhook, by when their end is to be delivered: see `web.jobs.due_list` |

A job's hash has besides: `entry`, its id in the queue; `told`, how far its progress is; `holder`, the replica that has
claimed it, empty once that has given it back; `writes`, the numbers of the last writes, see `redis_scripts`;
`artifact`, where the result is that is too large for Redis; `webhook`, as JSON, where its end goes to and what has
become of that, which replicas up to commit bcaa36b ignore. Replicas up to commit 31fe71b know no artifacts: for them
`end`, `outcome` and the log's last event are those of a job that has failed with a problem which says so. Where there
is an `artifact`, the job is completed.
`keep`, how many seconds it is kept after its end, and `response`, what a response was asked with, are there where they
are not None; `own_limit` and `hidden` where they are true. Replicas up to commit bcaa36b keep all jobs equally long.

In a Redis Cluster, where no version up to 31fe71b has ever run, ID, MODEL and NAME stand in braces, and the last five
names begin with `{jobs}:`: hash tags, so that what is used together is on one node. Messages go through all nodes.

Channels: `shangcai:changed:ID` says that a job has changed, `shangcai:ended` carries the ids of those that have ended,
`shangcai:news` what replicas broadcast. Up to commit 31fe71b replicas listened to `shangcai:changed` for the ids of all
jobs that change, and looked every 2 s besides. They still get it for what does not wait so long, the end of a job; a
message for each token of every job would cost every replica what this channel was given up for. Changes that they make
are seen by newer replicas in the same way: ends at once, all others within 2 s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from contract import Webhook
from web.callers.caller import DEFAULT_CALLER
from web.jobs.record import JobRecord

SCHEMA_KEY = "shangcai:schema"
SCHEMA = 1
"""The newest version that is known here. A version that older replicas cannot work with writes a larger one."""

SECRET_KEY = "shangcai:secret"  # noqa: S105 - its name

DOCUMENTS = "shangcai:models"

ENDED = "shangcai:ended"
BROADCAST = "shangcai:news"

GROUP = "web"
CONSUMER = "replica"
"""Who holds the claims of all replicas. Leases, not names, tell claims of replicas that live from those of dead ones,
and replicas that come and go leave no consumers behind. What nobody has claimed is held by `waiting`."""


RUN_FIELDS = ("entry", "holder", "started", "told", "attempts", "end", "ended", "outcome", "artifact", "own_limit")
"""What a job's hash holds of its runs, and of a header of its request. One that replaces a failed one has none of it,
but its `generation` grows on, so that what runs of the older one still write is refused."""


@dataclass(frozen=True)
class RedisKeys:
    """The names of keys and channels: with hash tags in a Redis Cluster, without them elsewhere."""

    cluster: bool = False

    def job(self, job: str) -> str:
        return self._name("job", job)

    def log(self, job: str) -> str:
        return self._name("log", job)

    def changes(self, job: str) -> str:
        """The channel of a job."""
        return self._name("changed", job)

    def caller(self, caller: str) -> str:
        return self._name("caller", caller)

    def queue(self, model: str) -> str:
        return self._name("queue", model)

    def fair(self, model: str) -> list[str]:
        """The queue of a model, and the keys beside it that hold the fair order of those who wait."""
        return [self._name(kind, model) for kind in ("queue", "waiting", "turns", "rounds")]

    @property
    def open(self) -> list[str]:
        """Jobs that have not ended, and the bytes of their requests."""
        return self._sets("open", "open-bytes")

    @property
    def ended(self) -> list[str]:
        """Jobs that have ended, and their bytes."""
        return self._sets("ended-jobs", "ended-bytes")

    @property
    def due(self) -> str:
        """Jobs whose end is to be delivered."""
        return self._sets("due")[0]

    def _sets(self, *names: str) -> list[str]:
        return [f"shangcai:{{jobs}}:{name}" if self.cluster else f"shangcai:{name}" for name in names]

    def _name(self, kind: str, of: str) -> str:
        return f"shangcai:{kind}:{{{of}}}" if self.cluster else f"shangcai:{kind}:{of}"


def fields_of(record: JobRecord) -> dict[str, str]:
    """The hash of a new job."""
    webhook = {} if record.webhook is None else {"webhook": record.webhook.model_dump_json()}
    return webhook | {
        "model": record.model,
        "kind": record.kind,
        "order": record.request,
        "digest": record.digest,
        "created": str(record.created),
        "deadline": str(record.deadline),
        **({"own_limit": "1"} if record.own_limit else {}),
        "headers": json.dumps(record.headers),
        "caller": record.caller,
        "cost": str(record.cost),
        **({} if record.keep_seconds is None else {"keep": str(record.keep_seconds)}),
        **({} if record.response is None else {"response": record.response}),
        **({"hidden": "1"} if record.hidden else {}),
    }


def record_of(job: str, fields: dict[str, Any]) -> JobRecord | None:
    """The job of a hash; None where there is no such job."""
    if not fields.get("created"):
        return None
    artifact, webhook = fields.get("artifact"), fields.get("webhook")
    return JobRecord(
        id=job,
        model=fields["model"],
        kind=fields["kind"],
        request=fields["order"],
        digest=fields["digest"],
        created=float(fields["created"]),
        deadline=float(fields["deadline"]),
        own_limit="own_limit" in fields,
        headers=json.loads(fields["headers"]),
        started=float(fields["started"]) if "started" in fields else None,
        ended=float(fields["ended"]) if "ended" in fields else None,
        end="completed" if artifact else fields.get("end"),
        outcome=None if artifact else fields.get("outcome"),
        artifact=artifact,
        attempts=int(fields.get("attempts", 0)),
        caller=fields.get("caller", DEFAULT_CALLER),
        cost=float(fields.get("cost", 1.0)),
        generation=int(fields.get("generation", 0)),
        keep_seconds=float(fields["keep"]) if "keep" in fields else None,
        response=fields.get("response"),
        hidden="hidden" in fields,
        webhook=Webhook.of_any_version(webhook) if webhook else None,
    )
