"""What a namespace may take, beside what its pods ask for where all models and web have scaled out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import Object
from tests.manifests.checks.references.object_set import ObjectSet
from tests.manifests.checks.values import number

MAX_SCALE = "autoscaling.knative.dev/max-scale"
QUEUE_PROXY_CPU = 0.025
"""What Knative's own container asks for, unless config-deployment says otherwise. It asks for no memory."""


def check(objects: ObjectSet) -> Iterator[str]:
    quotas = [thing for thing in objects.objects if thing.kind == "ResourceQuota"]
    if not quotas:
        return
    memory = [limit["defaultRequest"]["memory"] for thing in objects.objects for limit in _limits(thing)]
    if not memory:
        yield "a quota of memory refuses Knative's queue-proxy: a LimitRange must give it a request"
        return
    asked: defaultdict[str, float] = defaultdict(float)
    for thing in objects.objects:
        for name, amount in [*_pods(thing, number(memory[0])), *_storage(thing)]:
            asked[name] += amount
    for quota in quotas:
        for name, amount in quota.spec["hard"].items():
            wanted = asked[name] * (1 if name == "requests.storage" else 2)  # a rollout has two of each pod
            if number(amount) < wanted:
                yield f"{quota.title}: {name} is less than {wanted:g}"
        for name in asked.keys() - quota.spec["hard"].keys():
            yield f"{quota.title}: does not bound {name}"


def _limits(thing: Object) -> list[dict[str, Any]]:
    return thing.spec["limits"] if thing.kind == "LimitRange" else []


def _pods(thing: Object, queue_proxy_memory: float) -> Iterator[tuple[str, float]]:
    """What its pods ask for together, one container after the other."""
    if not thing.containers:
        return
    scale = (thing.template.get("metadata") or {}).get("annotations", {}).get(MAX_SCALE, 1)
    count = int(thing.pod.get("maxReplicas", thing.spec.get("replicas", scale)))
    yield "pods", count
    for container in thing.containers:
        resources = container["resources"]
        for name, amount in {**resources["limits"], **resources["requests"]}.items():
            yield f"requests.{name}", count * number(amount)
    if thing.is_knative:
        yield "requests.cpu", count * QUEUE_PROXY_CPU
        yield "requests.memory", count * queue_proxy_memory


def _storage(thing: Object) -> Iterator[tuple[str, float]]:
    claims = thing.spec.get("volumeClaimTemplates") or []
    for claim in [thing.document] if thing.kind == "PersistentVolumeClaim" else claims:
        yield "requests.storage", number(claim["spec"]["resources"]["requests"]["storage"])
