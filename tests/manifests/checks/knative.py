"""What the webhooks of Knative and KServe refuse, and what their feature flags must allow.

Read from their sources, as the field notes are: knative/serving pkg/apis/serving/k8s_validation.go and
pkg/apis/config/features.go; kserve/kserve pkg/apis/serving/v1beta1/inference_service_validation.go; knative/eventing
pkg/apis/duck/v1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from importlib.metadata import version
from typing import Any

from tests.manifests.checks.metadata import seconds
from tests.manifests.checks.objects import RESTORING, Object, environment, our_image, restores, walk

MAX_TIMEOUT = 600
DEFAULT_TIMEOUT = 300
"""Of a revision whose InferenceService has none."""
PROMETHEUS = "http://prometheus-operated.monitoring.svc.cluster.local:9090"
"""The address of the Prometheus operator's server."""
QUERY = 'sum({__name__=~"shangcai_num_requests_(running|waiting)",namespace="%s",pod=~"%s-predictor-.*"})'
"""How many requests a predictor has, of a namespace and a name."""
RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}
RESERVED_NAMES = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION", "PYTHONPATH"}
CONTAINER_FIELDS = {
    "name", "image", "args", "command", "env", "ports", "readinessProbe", "livenessProbe", "resources",
    "securityContext", "volumeMounts", "imagePullPolicy", "workingDir",
}  # fmt: skip
PLAIN_POD_FIELDS = {
    "containers", "serviceAccountName", "volumes", "containerConcurrency", "timeoutSeconds",
    "responseStartTimeoutSeconds", "imagePullSecrets",
}  # fmt: skip
KSERVE_FIELDS = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
RUNTIME_FIELDS = {"annotations", "protocolVersions", "supportedModelFormats"}
SECURITY_FIELDS = {
    "allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot", "runAsUser",
    "seccompProfile",
}  # fmt: skip
FLAGGED_FIELDS = {
    "runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "tolerations": "kubernetes.podspec-tolerations",
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "affinity": "kubernetes.podspec-affinity",
    "topologySpreadConstraints": "kubernetes.podspec-topologyspreadconstraints",
    "priorityClassName": "kubernetes.podspec-priorityclassname",
    "securityContext": "kubernetes.podspec-securitycontext",
    "initContainers": "kubernetes.podspec-init-containers",
}
CLUSTER_KEYS = {
    ("knative-serving", "config-features"): dict.fromkeys(FLAGGED_FIELDS.values(), "enabled|allowed")
    | {
        "kubernetes.podspec-persistent-volume-claim": "enabled",
        "kubernetes.podspec-persistent-volume-write": "enabled",
    },
    ("knative-serving", "config-autoscaler"): {"allow-zero-initial-scale": "true|false"},
    ("knative-serving", "config-deployment"): {"pod-is-always-schedulable": "true|false"},
    ("knative-serving", "config-network"): {"mesh-compatibility-mode": "enabled|disabled|auto"},
    ("knative-eventing", "config-features"): {"delivery-retryafter": "enabled"},
}
RETRY_AFTER = "delivery-retryafter"
DURATION = re.compile(r"P(?!$)(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")


def check(thing: Object) -> Iterator[str]:
    if thing.kind == "InferenceService.serving.kserve.io":
        yield from _inference_service(thing)
    if thing.kind == "ServingRuntime.serving.kserve.io":
        yield from _runtime(thing)
    if thing.kind == "Service.serving.knative.dev":
        yield from _service(thing)
    if thing.is_knative:
        yield from _pod(thing.pod)
    for container in thing.containers:
        yield from _container(container)
    yield from _volumes(thing)
    for path, value in walk(thing.spec):
        if re.search(r"(^|\.)delivery$", path) and isinstance(value, dict):
            yield from _delivery(value, path)
    if thing.kind == "PingSource.sources.knative.dev":
        yield from _ping(thing.spec)
    if thing.name == "broker-kafka":
        data = thing.document["data"]
        servers = r"[\w.-]+:\d+(,[\w.-]+:\d+)*"
        wanted = {"bootstrap.servers": servers} | dict.fromkeys(
            ("default.topic.partitions", "default.topic.replication.factor"), r"\d+"
        )
        if set(data) != set(wanted) or not all(re.fullmatch(wanted[key], value) for key, value in data.items()):
            yield f"data: must be {sorted(wanted)}"
    if thing.kind == "ConfigMap" and thing.namespace.startswith("knative-"):
        allowed = CLUSTER_KEYS.get((thing.namespace, thing.name), {})
        for key, value in (thing.document.get("data") or {}).items():
            if not re.fullmatch(allowed.get(key, "(?!)"), value):
                yield f"data.{key}: no such key, or not {value!r}"


def _inference_service(thing: Object) -> Iterator[str]:
    spec = thing.spec["predictor"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", thing.name):
        yield "metadata.name: is no name for an InferenceService"
    if "deploymentMode" not in " ".join(thing.annotations):
        yield "metadata.annotations: the deployment mode is left to the cluster"
    if [container["name"] for container in thing.containers] != ["kserve-container"]:
        yield "spec.predictor.containers: the container must be called kserve-container"
    if not 0 <= spec["minReplicas"] <= spec["maxReplicas"]:
        yield "spec.predictor.minReplicas: is beyond maxReplicas"
    if not 0 < spec["timeout"] <= MAX_TIMEOUT:
        yield f"spec.predictor.timeout: Knative allows up to {MAX_TIMEOUT}"
    if thing.is_knative:
        yield from _knative_scaling(thing, spec)
    else:
        yield from _standard_scaling(thing, spec)
    yield from _ending(thing.containers[0], spec["timeout"])


def _ending(container: dict[str, Any], timeout: int) -> Iterator[str]:
    request, grace = (
        float(environment(container).get(f"PREDICTOR_{name}_SECONDS", 0)) for name in ("REQUEST", "GRACE")
    )
    if not 0 < request < timeout:
        yield "PREDICTOR_REQUEST_SECONDS: must end before Knative's timeout does"
    if not request <= grace <= timeout - 30:
        yield "PREDICTOR_GRACE_SECONDS: must be enough for a request, and end before the pod is killed"


def _knative_scaling(thing: Object, spec: dict[str, Any]) -> Iterator[str]:
    slots = spec.get("containerConcurrency")
    if not isinstance(slots, int) or not 1 <= slots <= 1000:
        yield "spec.predictor.containerConcurrency: without it nothing bounds what a pod gets"
    if spec.get("scaleMetric") != "concurrency" or spec.get("scaleTarget") != slots:
        yield "spec.predictor.scaleTarget: must be concurrency, and as many as there are slots"
    if environment(thing.containers[0]).get("PREDICTOR_SLOTS") != str(slots):
        yield "PREDICTOR_SLOTS: must be containerConcurrency"
    for name in ("target-utilization-percentage", "panic-threshold-percentage", "target-burst-capacity", "window",
                 "scale-to-zero-pod-retention-period"):  # fmt: skip
        if f"autoscaling.knative.dev/{name}" not in thing.annotations:
            yield f"metadata.annotations: autoscaling.knative.dev/{name} is missing"
    if seconds(thing.annotations.get("serving.knative.dev/progress-deadline", "0s")) < spec["timeout"]:
        yield "metadata.annotations: serving.knative.dev/progress-deadline ends a start that requests still wait for"
    if thing.labels.get("networking.knative.dev/visibility") != "cluster-local":
        yield "metadata.labels: a predictor has no public address"


def _standard_scaling(thing: Object, spec: dict[str, Any]) -> Iterator[str]:
    if spec["minReplicas"] < 1:
        yield "spec.predictor.minReplicas: nothing holds requests at zero in Standard mode"
    if thing.labels.get("networking.kserve.io/visibility") != "cluster-local":
        yield "metadata.labels: a predictor has no public address"
    if spec.get("deploymentStrategy") != {"type": "Recreate"}:
        yield "spec.predictor.deploymentStrategy: a rolling update needs a second GPU"
    if spec.get("terminationGracePeriodSeconds", 0) < spec["timeout"]:
        yield "spec.predictor.terminationGracePeriodSeconds: is shorter than a request"
    if thing.annotations.get("serving.kserve.io/autoscalerClass") != "keda":
        if (spec.get("scaleMetric"), type(spec.get("scaleTarget"))) != ("cpu", int):
            yield "spec.predictor.scaleMetric: an HPA needs one"
        return
    for metric in spec["autoScaling"]["metrics"]:
        external = metric["external"]
        slots = environment(thing.containers[0])["PREDICTOR_SLOTS"]
        if metric["type"] != "External" or external["metric"].get("backend") != "prometheus":
            yield "spec.predictor.autoScaling: has no source of metrics"
        if external["target"] != {"type": "Value", "value": slots}:  # KServe reads `value` whatever the type
            yield "spec.predictor.autoScaling: the target must be the slots, as a value"
        if external["metric"]["query"] != QUERY % (thing.namespace or "shangcai", thing.name):
            yield "spec.predictor.autoScaling: the query must be for this predictor's running and waiting requests"
        if external["metric"]["serverAddress"] != PROMETHEUS:
            yield "spec.predictor.autoScaling: there is no Prometheus at that address"


def _runtime(thing: Object) -> Iterator[str]:
    if [container["name"] for container in thing.containers] != ["kserve-container"]:
        yield "spec.containers: the container must be called kserve-container"
    if thing.spec["protocolVersions"] != ["v1", "v2"]:
        yield "spec.protocolVersions: v1 and v2 are served"
    formats = {form["name"]: form for form in thing.spec["supportedModelFormats"]}
    if set(formats) != {"transformers", "diffusers"} or not all(form.get("autoSelect") for form in formats.values()):
        yield "spec.supportedModelFormats: must be transformers and diffusers, chosen by themselves"
    for name in formats.keys() & {"transformers", "diffusers"}:
        if formats[name].get("version") != version(name).partition(".")[0]:
            yield f"spec.supportedModelFormats: {name} {version(name)} is what the image has"
    yield from _ending(thing.containers[0], DEFAULT_TIMEOUT)
    if thing.containers[0]["args"] != ["--name={{.Name}}"]:
        yield "spec.containers[0].args: the served name is the InferenceService's"


def _service(thing: Object) -> Iterator[str]:
    spec = thing.pod
    if not 0 < spec.get("timeoutSeconds", 0) <= MAX_TIMEOUT:
        yield f"spec.template.spec.timeoutSeconds: Knative allows up to {MAX_TIMEOUT}"
    if spec.get("responseStartTimeoutSeconds") != spec.get("timeoutSeconds"):
        yield "spec.template.spec.responseStartTimeoutSeconds: a waking model is silent as long as the whole may take"
    if spec.get("containerConcurrency") != 0:
        yield "spec.template.spec.containerConcurrency: web bounds itself"
    names = {"autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/metric"}
    scaling = thing.template["metadata"].get("annotations") or {}
    for name in (names | {"autoscaling.knative.dev/target"}) - set(scaling):
        yield f"spec.template.metadata.annotations: {name} is missing"


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    for container in spec["containers"]:
        for name in set(container) - CONTAINER_FIELDS:
            yield f"containers.{name}: Knative does not allow it"
        for name in set(container.get("securityContext") or {}) - SECURITY_FIELDS:
            yield f"containers.securityContext.{name}: Knative does not allow it"
        ports = container.get("ports") or []
        if len(ports) != 1:
            yield "containers.ports: Knative takes exactly one"
        for port in ports:
            if port["containerPort"] in RESERVED_PORTS or port.get("name", "") not in ("", "http1", "h2c"):
                yield f"containers.ports: {port} is Knative's own, or has a name that it does not know"
        for name in RESERVED_NAMES & set(environment(container)):
            yield f"containers.env.{name}: is reserved"
        probe = container.get("readinessProbe", {})
        if "periodSeconds" not in probe and {"timeoutSeconds", "failureThreshold"} & set(probe):
            yield "containers.readinessProbe: without periodSeconds the other numbers are refused"


def check_flags(objects: list[Object], flags: Collection[str]) -> Iterator[str]:
    """Fields that Knative takes only with a flag that knative/cluster switches on."""
    for thing in objects:
        if not thing.is_knative:
            continue
        for name in thing.pod:
            flag = FLAGGED_FIELDS.get(name)
            if flag and flag not in flags:
                yield f"{thing.title}: {name} needs the feature {flag}"
            known = PLAIN_POD_FIELDS | KSERVE_FIELDS | (RUNTIME_FIELDS if "Runtime" in thing.kind else set())
            if not flag and name not in known:
                yield f"{thing.title}: {name} is not known to Knative"
        claims = [
            volume["persistentVolumeClaim"]
            for volume in thing.pod.get("volumes") or []
            if "persistentVolumeClaim" in volume
        ]
        if claims and "kubernetes.podspec-persistent-volume-claim" not in flags:
            yield f"{thing.title}: a claim needs the feature kubernetes.podspec-persistent-volume-claim"
        if (
            any(not claim.get("readOnly") for claim in claims)
            and "kubernetes.podspec-persistent-volume-write" not in flags
        ):
            yield f"{thing.title}: writing needs the feature kubernetes.podspec-persistent-volume-write"
    for thing in objects:
        if "retryAfterMax" in thing.spec.get("delivery", {}) and RETRY_AFTER not in flags:
            yield f"{thing.title}: retryAfterMax needs the feature {RETRY_AFTER}"
        initial = thing.annotations.get("autoscaling.knative.dev/initial-scale")
        if initial not in (None, "0"):
            yield f"{thing.title}: a rollout must not start a pod beside the one that has the GPU"


def _container(container: dict[str, Any]) -> Iterator[str]:
    resources = container.get("resources") or {}
    for kind in ("requests", "limits"):
        for name in ("cpu", "memory"):
            if name not in resources.get(kind, {}):
                yield f"containers.{container['name']}.resources.{kind}: {name} is missing"
    names = [variable["name"] for variable in container.get("env") or []]
    if len(names) != len(set(names)):
        yield f"containers.{container['name']}.env: a name is there twice"
    context = container.get("securityContext") or {}
    given_up = (
        RESTORING if restores(container) else {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    )
    if any(context.get(name) != value for name, value in given_up.items()):
        yield f"containers.{container['name']}.securityContext: must give up all privileges"
    user = {"runAsUser": 65532, "runAsNonRoot": True, "readOnlyRootFilesystem": True}
    if our_image(container) and not user.items() <= context.items():
        yield f"containers.{container['name']}.securityContext: must be the image's user on a read-only root"


def _volumes(thing: Object) -> Iterator[str]:
    made = [volume["name"] for volume in thing.pod.get("volumes") or []]
    if len(made) != len(set(made)):
        yield "volumes: a name is there twice"
    claimed = [claim["metadata"]["name"] for claim in thing.spec.get("volumeClaimTemplates") or []]
    mounted = {mount["name"] for container in thing.containers for mount in container.get("volumeMounts") or []}
    if mounted != {*made, *claimed}:
        yield f"volumes: {sorted({*made, *claimed} ^ mounted)} are mounted or made, but not both"


def _delivery(delivery: dict[str, Any], path: str) -> Iterator[str]:
    known = {"retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink", "retryAfterMax"}
    for name in set(delivery) - known:
        yield f"{path}.{name}: unknown"
    for name in ("backoffDelay", "timeout", "retryAfterMax"):
        if name in delivery and not (isinstance(delivery[name], str) and DURATION.fullmatch(delivery[name])):
            yield f"{path}.{name}: {delivery[name]!r} is no duration"
    if "backoffDelay" not in delivery or delivery.get("backoffPolicy") not in ("linear", "exponential"):
        yield f"{path}: without policy and delay retries have no delay"
    if not isinstance(delivery.get("retry"), int):
        yield f"{path}.retry: is missing"


def _ping(spec: dict[str, Any]) -> Iterator[str]:
    field = r"(\*|\d+(-\d+)?)(/\d+)?(,\d+(-\d+)?)*"
    if not re.fullmatch(rf"{field}( {field}){{4}}", spec["schedule"]):
        yield f"spec.schedule: {spec['schedule']!r} is no schedule"
    if spec.get("contentType") != "application/json" or "timezone" not in spec:
        yield "spec: content type or time zone is missing"
