"""Whether Knative Eventing is installed and set up as an overlay requires."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.checks.serving import flag_finding, running
from scripts.cluster.doctor.cluster_state import ClusterState, available
from scripts.cluster.doctor.finding import APPLY_SETTINGS, Finding
from scripts.cluster.doctor.manifests import broker_class
from scripts.cluster.doctor.requirements import Requirements

EVENTING_MINIMUM = (1, 17)
"""It serves EventType v1beta3 and EventPolicy, which came some versions earlier."""

BROKERS = {"MTChannelBasedBroker": "mt-broker-ingress", "Kafka": "kafka-broker-receiver"}
"""The Deployment in knative-eventing without which a Broker of that class accepts no event."""


def eventing(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    yield from running(cluster, "Knative Eventing", "knative-eventing", "eventing-controller", EVENTING_MINIMUM)
    features = cluster.config_maps("knative-eventing").get("config-features", {})
    for flag, owner in required.eventing_flags.items():
        yield flag_finding("knative-eventing", features, flag, owner, f"{APPLY_SETTINGS}/eventing")
    deployments = {item["metadata"]["name"]: item for item in cluster.deployments("knative-eventing")}
    for name in map(broker_class, required.brokers):
        wanted = BROKERS.get(name)
        if wanted is None:
            yield Finding("note", f"whether there are Brokers of class {name or 'the default one'} is not known here")
        elif wanted in deployments and available(deployments[wanted]):
            yield Finding("ok", f"Brokers of class {name} are served")
        else:
            state = "does not run" if wanted in deployments else "is not there"
            fix = "install Knative's broker of that class, or look at: kubectl get pods -n knative-eventing"
            yield Finding("wrong", f"Brokers of class {name} are not served: {wanted} {state}", fix)
