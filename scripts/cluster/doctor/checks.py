"""Whether a cluster has what an overlay needs: one finding for each thing, with what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scripts.cluster.doctor import hardware_checks, knative_checks, kserve_checks
from scripts.cluster.doctor.cluster_state import Finding, NotThere, Unreachable, View, at_least
from scripts.cluster.doctor.requirements import Document, Needs

KUBERNETES_MINIMUM = (1, 30)
"""KServe's own minimum, and the first with `preStop: sleep` (deploy/standard)."""

INSTALL = {
    "serving.knative.dev": "install Knative Serving",
    "eventing.knative.dev": "install Knative Eventing",
    "messaging.knative.dev": "install Knative Eventing with its in-memory channel",
    "sources.knative.dev": "install Knative Eventing",
    "serving.kserve.io": "install KServe",
}

Check = Callable[[View, Needs], Iterator[Finding]]
Served = dict[tuple[str, str], "str | None"]
"""(apiVersion, kind) → what the API server calls it in addresses; None where it does not serve it."""


def examine(view: View, needs: Needs) -> Iterator[Finding]:
    """All checks that concern the overlay, in the order in which they make sense to whoever mends."""
    yield server(view)  # Unreachable ends it here
    served = ask_what_is_served(view, needs)
    yield from missing_kinds(served)
    for check in checks(needs):
        try:
            yield from check(view, needs)
        except NotThere as error:
            yield Finding("wrong", str(error), "install what is missing, or ask for leave to read it")
    yield rights(view, needs.namespace, served)


def checks(needs: Needs) -> Iterator[Check]:
    if needs.uses_knative:
        yield knative_checks.serving
        yield knative_checks.ingress
        yield knative_checks.domain
        yield knative_checks.serving_settings
    if needs.inference_services:
        yield kserve_checks.kserve
    if needs.uses_eventing:
        yield knative_checks.eventing
    yield hardware_checks.storage
    yield hardware_checks.runtime_classes
    yield hardware_checks.devices


def server(view: View) -> Finding:
    try:
        version = view.json("version", "-o", "json")["serverVersion"]["gitVersion"]
    except (NotThere, KeyError) as error:
        raise Unreachable(f"the API server does not answer: {error}") from None
    return at_least("Kubernetes", version, KUBERNETES_MINIMUM)


def ask_what_is_served(view: View, needs: Needs) -> Served:
    found: Served = {}
    lists: dict[str, list[Document]] = {}
    for version, kind in needs.kinds:
        if version not in lists:
            path = f"/apis/{version}" if "/" in version else f"/api/{version}"
            try:
                lists[version] = view.json("get", "--raw", path)["resources"]
            except NotThere:
                lists[version] = []
        names = [item["name"] for item in lists[version] if item["kind"] == kind and "/" not in item["name"]]
        found[version, kind] = names[0] if names else None
    return found


def missing_kinds(served: Served) -> Iterator[Finding]:
    missing = [pair for pair, name in served.items() if name is None]
    if not missing:
        yield Finding("ok", f"all {len(served)} kinds of objects are served")
    for version, kind in missing:
        mend = INSTALL.get(version.partition("/")[0], "install it, or a newer version of it")
        yield Finding("wrong", f"{kind} of {version} is not served", mend)


def rights(view: View, namespace: str, served: Served) -> Finding:
    names = [
        f"{name}.{version.partition('/')[0]}" if "/" in version else name
        for (version, _), name in served.items()
        if name is not None
    ]
    denied = [name for name in names if not view.allowed("create", name, namespace)]
    if denied:
        what = f"you may not create in {namespace}: {', '.join(denied)}"
        return Finding("wrong", what, "ask whoever runs the cluster")
    return Finding("ok", f"you may create all of it in {namespace}")
