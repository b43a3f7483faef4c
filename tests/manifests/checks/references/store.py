"""Where jobs are kept: the Secret `store`, the Redis that it is the address of, and who must make what."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.manifests.checks.objects import Object
from tests.manifests.checks.references.object_set import ObjectSet

ASKED_FOR = ["--requirepass", "$(REDIS_PASSWORD)"]


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    if thing.kind != "Secret":
        return
    data = thing.document.get("stringData") or {}
    if thing.name != "store" or set(data) != {"url"}:
        yield "is no Secret that anybody reads"
        return
    url = urlsplit(data["url"])
    service = objects.named.get(("Service", url.hostname or ""))
    if url.scheme != "redis" or service is None or url.port not in [port["port"] for port in service.spec["ports"]]:
        yield f"there is no {data['url']}"


def check_password(objects: ObjectSet) -> Iterator[str]:
    """Of a whole deployment: the Secret is part of it where it holds no password, and its user's where it does."""
    made = ("Secret", "store") in objects.named
    redis = objects.named.get(("StatefulSet.apps", "redis"))
    if redis is None:
        return
    container = redis.containers[0]
    asks = container["args"][-2:] == ASKED_FOR and [each["name"] for each in container.get("env") or []] == [
        "REDIS_PASSWORD"
    ]
    if asks == made:
        yield "Redis asks for a password that the Secret store does not have, or for none"
