"""Whether Knative Serving is installed and set up as an overlay requires."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.cluster_state import ClusterState, available, version_of
from scripts.cluster.doctor.finding import APPLY_SETTINGS, Finding, at_least
from scripts.cluster.doctor.pods import Pod
from scripts.cluster.doctor.requirements import Requirements

SERVING_MINIMUM = (1, 19)
"""1.16.1 to 1.18 end the pods of the old revision before those of the new one run (knative/serving#15889)."""

NO_REGISTRIES = ("kind.local", "ko.local", "dev.local")
"""Registries of images that were loaded into nodes. Knative by default does not ask them for digests."""


def serving(cluster: ClusterState, _required: Requirements) -> Iterator[Finding]:
    yield from running(cluster, "Knative Serving", "knative-serving", "controller", SERVING_MINIMUM)


def domain(cluster: ClusterState, _required: Requirements) -> Iterator[Finding]:
    """Without a domain, Knative gives Services only addresses within the cluster."""
    domains = [name for name in cluster.config_maps("knative-serving").get("config-domain", {}) if name != "_example"]
    if domains:
        yield Finding("ok", f"Services get addresses below {' and '.join(domains)}")
    else:
        patch = """'{"data": {"example.com": ""}}'"""
        fix = f"kubectl patch configmap/config-domain -n knative-serving --type merge -p {patch}"
        yield Finding("wrong", "config-domain names no domain: web gets no address outside of the cluster", fix)


def settings(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    maps = cluster.config_maps("knative-serving")
    pods = [pod for pod in required.pods if pod.knative]
    for flag, owner in required.flags.items():
        yield flag_finding("knative-serving", maps.get("config-features", {}), flag, owner, APPLY_SETTINGS)
    yield from autoscaler(maps.get("config-autoscaler", {}), pods)
    yield from defaults(maps.get("config-defaults", {}), pods)
    yield from deployment(maps.get("config-deployment", {}), pods)


def autoscaler(values: dict[str, str], pods: list[Pod]) -> Iterator[Finding]:
    begin_at_zero = [pod for pod in pods if pod.annotations.get("autoscaling.knative.dev/initial-scale") == "0"]
    allowed = values.get("allow-zero-initial-scale", "false").lower() == "true"
    if begin_at_zero and allowed:
        yield Finding("ok", "config-autoscaler: allow-zero-initial-scale is true")
    elif begin_at_zero:
        owner = begin_at_zero[0].owner
        what = f"config-autoscaler: allow-zero-initial-scale is not true, and {owner} begins with no pod"
        yield Finding("wrong", what, APPLY_SETTINGS)
    if values.get("enable-scale-to-zero", "true").lower() != "true":
        yield Finding("wrong", "config-autoscaler: enable-scale-to-zero is not true: nothing goes to sleep", "set it")


def defaults(values: dict[str, str], pods: list[Pod]) -> Iterator[Finding]:
    longest = max(pods, key=Pod.timeout)
    bound = int(values.get("max-revision-timeout-seconds", 600))
    if longest.timeout() <= bound:
        yield Finding("ok", f"config-defaults: timeouts of up to {bound} s are allowed")
    else:
        wanted = f"{longest.owner} wants {longest.timeout()}"
        what = f"config-defaults: max-revision-timeout-seconds is {bound}, and {wanted}"
        yield Finding("wrong", what, "raise it, and terminationGracePeriodSeconds of the Deployment activator with it")
    widest = max(int(pod.service.get("containerConcurrency") or 0) for pod in pods)
    limit = int(values.get("container-concurrency-max-limit", 1000))
    if widest > limit:
        what = f"config-defaults: container-concurrency-max-limit is {limit}, and {widest} is wanted"
        yield Finding("wrong", what, "raise it")


def deployment(values: dict[str, str], pods: list[Pod]) -> Iterator[Finding]:
    if any(pod.devices() for pod in pods) and values.get("pod-is-always-schedulable", "false") != "true":
        what = "config-deployment: pod-is-always-schedulable is not true: a pod that waits for a GPU counts as failed"
        yield Finding("note", what, APPLY_SETTINGS)
    skipped = values.get("registries-skipping-tag-resolving", ",".join(NO_REGISTRIES)).split(",")
    hosts = {image.partition("/")[0] for pod in pods for image in pod.images}
    for host in sorted(hosts & set(NO_REGISTRIES) - set(skipped)):
        what = f"config-deployment: registries-skipping-tag-resolving lacks {host}, where there is no registry to ask"
        yield Finding("wrong", what, f"add {host} to it")


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


def flag_finding(namespace: str, features: dict[str, str], flag: str, owner: str, fix: str) -> Finding:
    value = features.get(flag, "disabled").lower()
    if value in ("enabled", "allowed"):
        return Finding("ok", f"config-features: {flag} is {value}")
    return Finding("wrong", f"config-features in {namespace}: {flag} is {value}, and {owner} needs it", fix)
