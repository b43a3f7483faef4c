"""Whether the API server answers, is new enough, serves the kinds of an overlay, and lets the user create them."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.cluster_state import ClusterState, NotFound, Unreachable, version_of
from scripts.cluster.doctor.finding import Finding, at_least, major_minor
from scripts.cluster.doctor.manifests import Document, group_of, name_of
from scripts.cluster.doctor.requirements import Requirements

KSERVE_WANTS = (1, 32)
"""What KServe 0.17 and later ask for (its quickstart guide)."""

KNATIVE_REFUSES_BELOW = {(1, 19): (1, 32), (1, 20): (1, 32), (1, 21): (1, 33), (1, 22): (1, 34), (1, 23): (1, 34)}
"""The Kubernetes below which a version of Knative ends at once (knative/pkg version/version.go, by release branch)."""

KNATIVE = {
    "Knative Serving": ("knative-serving", "controller"),
    "Knative Eventing": ("knative-eventing", "eventing-controller"),
}

INSTALL = {
    "serving.knative.dev": "install Knative Serving",
    "eventing.knative.dev": "install Knative Eventing",
    "messaging.knative.dev": "install Knative Eventing with its in-memory channel",
    "sources.knative.dev": "install Knative Eventing",
    "serving.kserve.io": "install KServe",
    "monitoring.coreos.com": "install the Prometheus operator, or leave the component monitoring out",
    "gateway.networking.k8s.io": "install the Gateway API with a controller, or leave the component http-route out",
}

BROKER_AUDIENCE = "eventing.knative.dev/broker/"
"""Then the Broker's namespace and name (knative/eventing pkg/auth/audience.go)."""

ServedKinds = dict[tuple[str, str], "str | None"]
"""(apiVersion, kind) → the resource's name in URLs; None if the API server does not serve the kind."""


def kubernetes(cluster: ClusterState, required: Requirements) -> Finding:
    """Whether the API server is as new as Knative and KServe want it; raises an Unreachable."""
    try:
        version = cluster.json("version", "-o", "json")["serverVersion"]["gitVersion"]
    except (NotFound, KeyError) as error:
        raise Unreachable(f"the API server does not answer: {error}") from None
    minimum, reason = KSERVE_WANTS, "KServe asks for it"
    for name, (namespace, controller) in KNATIVE.items():
        used = required.uses_knative if namespace == "knative-serving" else required.uses_eventing
        found = knative_version(cluster, namespace, controller) if used else ""
        if (below := refused_below(found)) > minimum:
            minimum, reason = below, f"{name} {found} ends at once below it"
    finding = at_least("Kubernetes", version, minimum)
    if finding.verdict == "wrong":
        return Finding("wrong", f"{finding.text}: {reason}", finding.fix)
    return finding


def knative_version(cluster: ClusterState, namespace: str, controller: str) -> str:
    """Empty if it is not there, or does not say."""
    try:
        deployments = cluster.deployments(namespace)
    except NotFound:
        return ""
    return next((version_of(item) for item in deployments if item["metadata"]["name"] == controller), "")


def refused_below(knative: str) -> tuple[int, int]:
    """The Kubernetes that a version of Knative wants; that of the latest known one for those after it."""
    version = major_minor(knative)
    if version is None or version < min(KNATIVE_REFUSES_BELOW):
        return (0, 0)
    return KNATIVE_REFUSES_BELOW.get(version, max(KNATIVE_REFUSES_BELOW.values()))


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


def namespace(_cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    """Whether the texts of objects name the namespace that these are in: kustomize's `namespace` changes no texts."""
    for what, named in named_namespaces(required):
        if named != required.namespace:
            fix = "write the namespace into kustomization.yaml and namespace.yaml of your copy, and of the one below it"
            yield Finding("wrong", f"{what} is {named}, and all is created in {required.namespace}", fix)


def named_namespaces(required: Requirements) -> Iterator[tuple[str, str]]:
    for pod in required.pods:
        for container in pod.containers:
            for variable in container.get("env") or []:
                if variable["name"] == "NAMESPACE" and "value" in variable:
                    yield f"NAMESPACE of {pod.owner}", variable["value"]
        for volume in pod.spec.get("volumes") or []:
            for source in volume.get("projected", {}).get("sources") or []:
                audience = source.get("serviceAccountToken", {}).get("audience", "")
                if audience.startswith(BROKER_AUDIENCE):
                    yield f"the audience of the token of {pod.owner}", audience.split("/")[2]
    accounts = [item["metadata"]["name"] for item in required.of("", "ServiceAccount")]
    for binding in required.of("rbac.authorization.k8s.io", "RoleBinding"):
        for subject in binding.get("subjects") or []:
            if subject["kind"] == "ServiceAccount" and subject["name"] in accounts and "namespace" in subject:
                yield f"the subject of {name_of(binding)}", subject["namespace"]


def gateways(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    """Whether there are the Gateways that HTTPRoutes hang on."""
    for route in required.of("gateway.networking.k8s.io", "HTTPRoute"):
        for parent in route["spec"].get("parentRefs") or []:
            namespace, name = parent.get("namespace", required.namespace), parent["name"]
            made = [item["metadata"]["name"] for item in required.of(group_of(route), "Gateway")]
            if parent.get("kind", "Gateway") != "Gateway" or name in made:
                continue
            try:
                cluster.get("gateways.gateway.networking.k8s.io", name, "-n", namespace)
                yield Finding("ok", f"the Gateway {name} in {namespace} is there")
            except NotFound:
                what = f"there is no Gateway {name} in {namespace}, which HTTPRoute {route['metadata']['name']} names"
                yield Finding("wrong", what, "make it, or name yours in the overlay")


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
