"""Whether Knative is installed and set up as an overlay requires."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.cluster_state import ClusterState, available, version_of
from scripts.cluster.doctor.finding import APPLY_SETTINGS, Finding, at_least
from scripts.cluster.doctor.pods import Pod
from scripts.cluster.doctor.requirements import Requirements

SERVING_MINIMUM = (1, 19)
"""1.16.1 to 1.18 end the pods of the old revision before those of the new one run (knative/serving#15889)."""

EVENTING_MINIMUM = (1, 17)
"""It serves EventType v1beta3 and EventPolicy, which came some versions earlier."""

GATEWAYS = {
    "kourier.ingress.networking.knative.dev": ("kourier-system", "kourier"),
    "istio.ingress.networking.knative.dev": ("istio-system", "istio-ingressgateway"),
    "contour.ingress.networking.knative.dev": ("contour-external", "envoy"),
}
"""The Service through which each ingress class is reached."""

NO_REGISTRIES = ("kind.local", "ko.local", "dev.local")
"""Registries of images that were loaded into nodes. Knative by default does not ask them for digests."""

BROKERS = {
    "MTChannelBasedBroker": "mt-broker-ingress",
    "Kafka": "kafka-broker-receiver",
}
"""The Deployment in knative-eventing without which a Broker of that class accepts no event."""


def serving(cluster: ClusterState, _required: Requirements) -> Iterator[Finding]:
    yield from running(cluster, "Knative Serving", "knative-serving", "controller", SERVING_MINIMUM)


def ingress_class(cluster: ClusterState) -> str:
    network = cluster.config_maps("knative-serving").get("config-network", {})
    # The second is the former spelling, the last is Knative's default.
    return network.get("ingress-class") or network.get("ingress.class") or "istio.ingress.networking.knative.dev"


def ingress(cluster: ClusterState, _required: Requirements) -> Iterator[Finding]:
    name = ingress_class(cluster)
    if name not in GATEWAYS:
        yield Finding("note", f"the ingress class is {name}; whether it runs is not known here")
        return
    namespace, service = GATEWAYS[name]
    label = f"kubernetes.io/service-name={service}"
    slices = cluster.items("endpointslices", "-n", namespace, "-l", label)
    endpoints = [endpoint for item in slices for endpoint in item.get("endpoints") or []]
    if any(endpoint.get("conditions", {}).get("ready") for endpoint in endpoints):
        yield Finding("ok", f"the ingress {name} runs")
    else:
        fix = f"install it, or name another in config-network; look at: kubectl get pods -n {namespace}"
        yield Finding("wrong", f"the ingress {name} does not run: nothing ready behind {service} in {namespace}", fix)


def domain(cluster: ClusterState, _required: Requirements) -> Iterator[Finding]:
    """Without a domain, Knative gives Services only addresses within the cluster."""
    domains = [name for name in cluster.config_maps("knative-serving").get("config-domain", {}) if name != "_example"]
    if domains:
        yield Finding("ok", f"Services get addresses below {' and '.join(domains)}")
    else:
        patch = """'{"data": {"example.com": ""}}'"""
        fix = f"kubectl patch configmap/config-domain -n knative-serving --type merge -p {patch}"
        yield Finding("wrong", "config-domain names no domain: web gets no address outside of the cluster", fix)


def serving_settings(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    maps = cluster.config_maps("knative-serving")
    pods = [pod for pod in required.pods if pod.knative]
    for flag, owner in required.flags.items():
        yield flag_finding("knative-serving", maps.get("config-features", {}), flag, owner)
    yield from autoscaler(maps.get("config-autoscaler", {}), pods)
    yield from defaults(maps.get("config-defaults", {}), pods)
    yield from deployment(maps.get("config-deployment", {}), pods)


def autoscaler(settings: dict[str, str], pods: list[Pod]) -> Iterator[Finding]:
    begin_at_zero = [pod for pod in pods if pod.annotations.get("autoscaling.knative.dev/initial-scale") == "0"]
    allowed = settings.get("allow-zero-initial-scale", "false").lower() == "true"
    if begin_at_zero and allowed:
        yield Finding("ok", "config-autoscaler: allow-zero-initial-scale is true")
    elif begin_at_zero:
        owner = begin_at_zero[0].owner
        what = f"config-autoscaler: allow-zero-initial-scale is not true, and {owner} begins with no pod"
        yield Finding("wrong", what, APPLY_SETTINGS)
    if settings.get("enable-scale-to-zero", "true").lower() != "true":
        yield Finding("wrong", "config-autoscaler: enable-scale-to-zero is not true: nothing goes to sleep", "set it")


def defaults(settings: dict[str, str], pods: list[Pod]) -> Iterator[Finding]:
    longest = max(pods, key=Pod.timeout)
    bound = int(settings.get("max-revision-timeout-seconds", 600))
    if longest.timeout() <= bound:
        yield Finding("ok", f"config-defaults: timeouts of up to {bound} s are allowed")
    else:
        wanted = f"{longest.owner} wants {longest.timeout()}"
        what = f"config-defaults: max-revision-timeout-seconds is {bound}, and {wanted}"
        yield Finding("wrong", what, "raise it, and terminationGracePeriodSeconds of the Deployment activator with it")
    widest = max(int(pod.service.get("containerConcurrency") or 0) for pod in pods)
    limit = int(settings.get("container-concurrency-max-limit", 1000))
    if widest > limit:
        what = f"config-defaults: container-concurrency-max-limit is {limit}, and {widest} is wanted"
        yield Finding("wrong", what, "raise it")


def deployment(settings: dict[str, str], pods: list[Pod]) -> Iterator[Finding]:
    if any(pod.devices() for pod in pods) and settings.get("pod-is-always-schedulable", "false") != "true":
        what = "config-deployment: pod-is-always-schedulable is not true: a pod that waits for a GPU counts as failed"
        yield Finding("note", what, APPLY_SETTINGS)
    skipped = settings.get("registries-skipping-tag-resolving", ",".join(NO_REGISTRIES)).split(",")
    hosts = {container["image"].partition("/")[0] for pod in pods for container in pod.containers}
    for host in sorted(hosts & set(NO_REGISTRIES) - set(skipped)):
        what = f"config-deployment: registries-skipping-tag-resolving lacks {host}, where there is no registry to ask"
        yield Finding("wrong", what, f"add {host} to it")


def eventing(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    yield from running(cluster, "Knative Eventing", "knative-eventing", "eventing-controller", EVENTING_MINIMUM)
    features = cluster.config_maps("knative-eventing").get("config-features", {})
    for flag, owner in required.eventing_flags.items():
        yield flag_finding("knative-eventing", features, flag, owner)
    deployments = {item["metadata"]["name"]: item for item in cluster.deployments("knative-eventing")}
    for name in required.broker_classes:
        wanted = BROKERS.get(name)
        if wanted is None:
            yield Finding("note", f"whether there are Brokers of class {name or 'the default one'} is not known here")
        elif wanted in deployments and available(deployments[wanted]):
            yield Finding("ok", f"Brokers of class {name} are served")
        else:
            state = "does not run" if wanted in deployments else "is not there"
            fix = "install Knative's broker of that class, or look at: kubectl get pods -n knative-eventing"
            yield Finding("wrong", f"Brokers of class {name} are not served: {wanted} {state}", fix)


def running(
    cluster: ClusterState, name: str, namespace: str, controller: str, minimum: tuple[int, int]
) -> Iterator[Finding]:
    """The version of a controller, and whether all Deployments of its namespace run."""
    deployments = cluster.deployments(namespace)
    found = [item for item in deployments if item["metadata"]["name"] == controller]
    if not found:
        yield Finding("wrong", f"{name} is not there: no Deployment {controller} in {namespace}", f"install {name}")
        return
    yield at_least(name, version_of(found[0]), minimum)
    stopped = [item["metadata"]["name"] for item in deployments if not available(item)]
    if stopped:
        look_at = f"look at: kubectl get pods -n {namespace}"
        yield Finding("wrong", f"in {namespace} do not run: {', '.join(stopped)}", look_at)
    else:
        yield Finding("ok", f"all of {namespace} runs")


def flag_finding(namespace: str, features: dict[str, str], flag: str, owner: str) -> Finding:
    value = features.get(flag, "disabled").lower()
    if value in ("enabled", "allowed"):
        return Finding("ok", f"config-features: {flag} is {value}")
    return Finding("wrong", f"config-features in {namespace}: {flag} is {value}, and {owner} needs it", APPLY_SETTINGS)
