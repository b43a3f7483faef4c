"""Whether a cluster has what an overlay requires: the order of all checks, and those of the API server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scripts.cluster.doctor import hardware_checks, knative_checks, kserve_checks
from scripts.cluster.doctor.cluster_state import ClusterState, NotFound, Unreachable
from scripts.cluster.doctor.finding import Finding, at_least
from scripts.cluster.doctor.manifests import Document
from scripts.cluster.doctor.requirements import Requirements

KUBERNETES_MINIMUM = (1, 30)
"""KServe's own minimum, and the first with `preStop: sleep` (deploy/standard)."""

INSTALL = {
    "serving.knative.dev": "install Knative Serving",
    "eventing.knative.dev": "install Knative Eventing",
    "messaging.knative.dev": "install Knative Eventing with its in-memory channel",
    "sources.knative.dev": "install Knative Eventing",
    "serving.kserve.io": "install KServe",
}

Check = Callable[[ClusterState, Requirements], Iterator[Finding]]
ServedKinds = dict[tuple[str, str], "str | None"]
"""(apiVersion, kind) → the resource's name in URLs; None if the API server does not serve the kind."""


def examine(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    """All checks that concern the overlay, in the order in which things are best fixed; raises an Unreachable."""
    yield api_server(cluster)  # raises an Unreachable
    served = served_kinds(cluster, required)
    yield from missing_kinds(served)
    for check in checks(required):
        try:
            yield from check(cluster, required)
        except NotFound as error:
            yield Finding("wrong", str(error), "install what is missing, or ask for leave to read it")
    yield permissions(cluster, required.namespace, served)


def checks(required: Requirements) -> Iterator[Check]:
    if required.uses_knative:
        yield knative_checks.serving
        yield knative_checks.ingress
        yield knative_checks.domain
        yield knative_checks.serving_settings
    if required.inference_services:
        yield kserve_checks.kserve
    if required.uses_eventing:
        yield knative_checks.eventing
    yield secrets
    yield hardware_checks.storage
    yield hardware_checks.runtime_classes
    yield hardware_checks.devices


def api_server(cluster: ClusterState) -> Finding:
    try:
        version = cluster.json("version", "-o", "json")["serverVersion"]["gitVersion"]
    except (NotFound, KeyError) as error:
        raise Unreachable(f"the API server does not answer: {error}") from None
    return at_least("Kubernetes", version, KUBERNETES_MINIMUM)


def served_kinds(cluster: ClusterState, required: Requirements) -> ServedKinds:
    found: ServedKinds = {}
    lists: dict[str, list[Document]] = {}
    for version, kind in required.kinds:
        if version not in lists:
            path = f"/apis/{version}" if "/" in version else f"/api/{version}"
            try:
                lists[version] = cluster.json("get", "--raw", path)["resources"]
            except NotFound:
                lists[version] = []
        names = [item["name"] for item in lists[version] if item["kind"] == kind and "/" not in item["name"]]
        found[version, kind] = names[0] if names else None
    return found


def missing_kinds(served: ServedKinds) -> Iterator[Finding]:
    missing = [pair for pair, name in served.items() if name is None]
    if not missing:
        yield Finding("ok", f"all {len(served)} kinds of objects are served")
    for version, kind in missing:
        fix = INSTALL.get(version.partition("/")[0], "install it, or a newer version of it")
        yield Finding("wrong", f"{kind} of {version} is not served", fix)


def secrets(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    for name, owner in required.secrets.items():
        try:
            cluster.get("secret", name, "-n", required.namespace)
            yield Finding("ok", f"the Secret {name} is there")
        except NotFound as error:
            fix = f"scripts/make-secrets NAME | kubectl create -n {required.namespace} -f -"
            yield Finding("wrong", f"{owner} needs the Secret {name}: {error}", fix)


def permissions(cluster: ClusterState, namespace: str, served: ServedKinds) -> Finding:
    names = [
        f"{name}.{version.partition('/')[0]}" if "/" in version else name
        for (version, _), name in served.items()
        if name is not None
    ]
    denied = [name for name in names if not cluster.allowed("create", name, namespace)]
    if denied:
        what = f"you may not create in {namespace}: {', '.join(denied)}"
        return Finding("wrong", what, "ask whoever runs the cluster")
    return Finding("ok", f"you may create all of it in {namespace}")
