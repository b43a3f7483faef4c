"""Make a cluster on this machine with Knative, KServe and deploy/laptop in it, and have it write a poem.

scripts/cluster-up calls this. Runs on a bare Python. Run again, it does what is not done yet.
"""

from __future__ import annotations

import argparse
import os
import sys

from scripts.cluster.commands import Commands, Failure, find_tool
from scripts.cluster.components import COMPONENTS, CPUS, EVENTS, MEMORY_GIB
from scripts.cluster.first_poem import ask_for_a_poem
from scripts.cluster.installation import install
from scripts.cluster.kubectl import Kubectl
from scripts.cluster.local_cluster import KINDS, find_cluster
from scripts.cluster.node_images import load_images
from scripts.cluster.readiness import not_ready
from scripts.project import ROOT

NAMESPACE = "shangcai"
READY_KINDS = "services.serving.knative.dev,inferenceservices.serving.kserve.io"
EVENTS_READY_KINDS = "brokers.eventing.knative.dev,triggers.eventing.knative.dev"
"""What deploy/laptop and deploy/laptop-events have that says whether it is Ready."""


def main() -> int:
    arguments = parse()
    os.chdir(ROOT)
    try:
        bring_up(arguments)
    except Failure as failure:
        print(f"scripts/cluster-up: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nscripts/cluster-up: stopped; run again, it goes on", file=sys.stderr)
        return 130
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/cluster-up",
        description="Make a cluster on this machine with kind or minikube, install Knative and KServe, and deploy "
        "deploy/laptop: two small models on the CPU. Run again, it does what is not done yet. "
        f"Wants {CPUS} CPUs and {MEMORY_GIB} GiB. "
        "scripts/cluster-down removes it.",
        epilog="What stands behind -- goes to scripts/build-images, such as -- --torch cuda. Without it torch comes "
        "from its index of CPU builds, if that can be reached: the models run on the CPU.",
    )
    parser.add_argument(
        "--with", dest="tool", choices=KINDS, help="what makes the cluster (default: whichever is there)"
    )
    parser.add_argument("--name", default="shangcai", help="of the cluster (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="of this machine, for /generate (default: %(default)s)")
    parser.add_argument(
        "--events",
        action="store_true",
        help="install Knative Eventing as well, and deploy deploy/laptop-events: requests go through a Broker",
    )
    parser.add_argument("--build", action="store_true", help="build the images anew although they are there")
    parser.add_argument(
        "--timeout", type=float, default=1800, help="seconds that each step may take (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands for a bare machine, and run none")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:split])
    arguments.build_flags = sys.argv[split + 1 :]
    return arguments


def bring_up(arguments: argparse.Namespace) -> None:
    """All steps in their order; raises a Failure."""
    cluster = find_cluster(Commands(arguments.dry_run), arguments.name, arguments.tool)
    find_tool(("curl",), arguments.dry_run)
    kubectl = Kubectl(cluster, arguments.timeout)
    port = make_cluster(kubectl, arguments.port)
    overlay, settings, kinds = "deploy/laptop", ["knative/cluster"], READY_KINDS
    if arguments.events:
        overlay, kinds = "deploy/laptop-events", f"{READY_KINDS},{EVENTS_READY_KINDS}"
        settings.append("knative/cluster/eventing")
    for component in (*COMPONENTS, EVENTS) if arguments.events else COMPONENTS:
        install(kubectl, component)
    flags = ["--server-side", "--force-conflicts", "--field-manager=shangcai"]
    for folder in settings:
        kubectl.apply(folder, [*flags, "-k", folder])
    load_images(kubectl, arguments.build, arguments.build_flags)
    kubectl.apply(overlay, ["-k", overlay])
    kubectl.say("in the first seconds objects are not ready since each waits for another's address: that is normal")
    kubectl.wait(overlay, ["get", kinds, "-n", NAMESPACE, "-o", "json"], not_ready, f"get pods -n {NAMESPACE}")
    ask_for_a_poem(kubectl, NAMESPACE, port)


def make_cluster(kubectl: Kubectl, port: int) -> int:
    """Make the cluster unless it is there; the port that it is reached at. Raises a Failure if it is not ours."""
    cluster = kubectl.cluster
    if not cluster.exists():
        kubectl.say(f"making the cluster {cluster.name}")
        cluster.create(port, kubectl.seconds)
        return port
    made_with = cluster.made_with_port()
    if made_with is not None:  # a node keeps its port for life
        kubectl.say(f"the cluster {cluster.name} is there, on port {made_with}")
        return made_with
    if cluster.answers():
        raise Failure(
            f"there is a cluster {cluster.name} that this script did not make; choose another name with --name"
        )
    raise Failure(
        f"the cluster {cluster.name} is there but does not answer; scripts/cluster-down says how to remove it"
    )


if __name__ == "__main__":
    sys.exit(main())
