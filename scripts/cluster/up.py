"""Make a cluster on this machine with Knative, KServe and deploy/laptop in it, and have it write a poem.

Called by scripts/cluster-up. Runs on a bare Python. Run again, it does what is not done yet.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.cluster.local_cluster import KINDS, NODE_PORT, Cluster, Commands, Failure, find, find_cluster

# The versions that KServe 0.21 is released against (install/v0.21.0/kserve-knative-mode-dependency-install.sh in its
# repository); KServe is that of our SDK in pyproject.toml. Kubernetes stands in cluster.py.
CERT_MANAGER = "1.17.0"
SERVING = "1.21.1"
KOURIER = "1.21.0"
EVENTING = "1.21.1"
KSERVE = "0.21.0"

ROOT = Path(__file__).resolve().parents[2]
GITHUB = "https://github.com"
NAMESPACE = "shangcai"
PREFIX = "dev.local/shangcai"
"""Of a registry that Knative does not ask for digests, since there is none: the images lie on the node."""

DOMAIN = "127.0.0.1.sslip.io"
"""A public name of this machine below which every Service has its own, for browsers. curl needs no such name."""

DONE = "shangcai.ai/cluster-up"
"""Annotation of a namespace: what was brought into it, written when it ran."""

PAUSE_SECONDS = 2.0
PROMPT = "写一首关于春雨的诗"
READY_KINDS = (
    "services.serving.knative.dev,inferenceservices.serving.kserve.io,brokers.eventing.knative.dev,"
    "triggers.eventing.knative.dev,sinkbindings.sources.knative.dev"
)


@dataclass(frozen=True)
class Component:
    """Something that is installed from the manifests of a release."""

    name: str
    version: str
    namespace: str
    repository: str
    release: str
    manifests: tuple[str, ...]

    @property
    def mark(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def urls(self) -> list[str]:
        return [f"{GITHUB}/{self.repository}/releases/download/{self.release}/{name}" for name in self.manifests]


COMPONENTS = (
    Component(
        "cert-manager",  # for the certificates of KServe's webhooks
        CERT_MANAGER,
        "cert-manager",
        "cert-manager/cert-manager",
        f"v{CERT_MANAGER}",
        ("cert-manager.yaml",),
    ),
    Component(
        "Knative Serving",
        SERVING,
        "knative-serving",
        "knative/serving",
        f"knative-v{SERVING}",
        ("serving-crds.yaml", "serving-core.yaml"),
    ),
    Component(
        "Kourier",
        KOURIER,
        "kourier-system",
        "knative-extensions/net-kourier",
        f"knative-v{KOURIER}",
        ("kourier.yaml",),
    ),
    Component(
        "Knative Eventing",
        EVENTING,
        "knative-eventing",
        "knative/eventing",
        f"knative-v{EVENTING}",
        ("eventing-crds.yaml", "eventing-core.yaml", "in-memory-channel.yaml", "mt-channel-broker.yaml"),
    ),
    Component("KServe", KSERVE, "kserve", "kserve/kserve", f"v{KSERVE}", ("kserve.yaml",)),
)


def main() -> int:
    arguments = parse()
    os.chdir(ROOT)
    try:
        cluster = find_cluster(Commands(arguments.dry_run), arguments.name, arguments.tool)
        find(("curl",), arguments.dry_run)
        Up(cluster, arguments).go()
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
        "deploy/laptop: two small models on the CPU. Run again, it does what is not done yet. Wants 4 CPUs and 8 GiB. "
        "scripts/cluster-down removes it.",
        epilog="What stands behind -- goes to scripts/build-images, such as -- --torch-index URL: that of torch's CPU "
        "builds makes the image gigabytes smaller.",
    )
    parser.add_argument(
        "--with", dest="tool", choices=KINDS, help="what makes the cluster (default: whichever is there)"
    )
    parser.add_argument("--name", default="shangcai", help="of the cluster (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="of this machine, for /generate (default: %(default)s)")
    parser.add_argument("--build", action="store_true", help="build the images anew although they are there")
    parser.add_argument(
        "--timeout", type=float, default=1800, help="seconds that each step may take (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands for a bare machine, and run none")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:split])
    arguments.build_flags = sys.argv[split + 1 :]
    return arguments


class Up:
    def __init__(self, cluster: Cluster, arguments: argparse.Namespace) -> None:
        self.cluster = cluster
        self.commands = cluster.commands
        self.seconds: float = arguments.timeout
        self.port: int = arguments.port
        self.build: bool = arguments.build
        self.build_flags: list[str] = arguments.build_flags
        self.images = [f"{PREFIX}/{image}:{version()}" for image in ("web", "predictor")]

    def go(self) -> None:
        self.make_cluster()
        for component in COMPONENTS:
            self.install(component)
        self.apply(
            "knative/cluster",
            ["--server-side", "--force-conflicts", "--field-manager=shangcai", "-k", "knative/cluster"],
        )
        self.bring_images()
        self.apply("deploy/laptop", ["-k", "deploy/laptop"])
        self.wait(
            "deploy/laptop", ["get", READY_KINDS, "-n", NAMESPACE, "-o", "json"], not_ready, f"get pods -n {NAMESPACE}"
        )
        self.ask_for_a_poem()

    def make_cluster(self) -> None:
        name = self.cluster.name
        if not self.cluster.exists():
            self.say(f"making the cluster {name}")
            self.cluster.create(self.port, self.seconds)
            return
        port = self.cluster.made_with_port()
        if port is not None:
            self.port = port  # it cannot be changed any more
            self.say(f"the cluster {name} is there, on port {port}")
        elif self.cluster.answers():
            raise Failure(f"there is a cluster {name} that this script did not make; choose another name with --name")
        else:
            raise Failure(
                f"the cluster {name} is there but does not answer; scripts/cluster-down says how to remove it"
            )

    def install(self, component: Component) -> None:
        query = ["get", "namespace", component.namespace, "-o", "json"]
        annotations = json.loads(self.ask(*query) or "{}").get("metadata", {}).get("annotations") or {}
        if annotations.get(DONE) == component.mark:
            self.say(f"{component.mark} is there")
            return
        self.say(f"installing {component.mark}")
        if component.name == "KServe":  # whose manifests do not hold their namespace
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": component.namespace}}
            self.apply(component.name, ["-f", "-"], json.dumps(namespace))
        for url in component.urls:
            # Server-side: the CRDs of KServe are too large for the annotation of a client-side apply.
            self.apply(component.name, ["--server-side", "--force-conflicts", "-f", url])
        if component.name == "Kourier":
            self.set_up_kourier()
        if component.name == "KServe":
            self.set_up_kserve()
        query = ["get", "deployments", "-n", component.namespace, "-o", "json"]
        self.wait(component.name, query, not_available, f"get pods -n {component.namespace}")
        self.kubectl(
            component.name, "annotate", "namespace", component.namespace, "--overwrite", f"{DONE}={component.mark}"
        )

    def set_up_kourier(self) -> None:
        for name, data in (
            ("config-network", {"ingress-class": "kourier.ingress.networking.knative.dev"}),
            ("config-domain", {DOMAIN: ""}),
        ):
            patch = json.dumps({"data": data})
            self.kubectl("Kourier", "patch", "configmap", name, "-n", "knative-serving", "--type=merge", "-p", patch)
        ports = {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": NODE_PORT}]}}
        self.kubectl("Kourier", "patch", "service", "kourier", "-n", "kourier-system", "-p", json.dumps(ports))

    def set_up_kserve(self) -> None:
        """Without Istio, and without the controllers of kinds that are not used here."""
        config = self.ask("get", "configmap", "inferenceservice-config", "-n", "kserve", "-o", "json")
        if config is None and not self.commands.dry:  # what it says besides must stay
            raise Failure("KServe: its ConfigMap inferenceservice-config cannot be read")
        ingress = json.loads(json.loads(config)["data"]["ingress"] if config else "{}")
        if config is None:
            self.say("in `ingress` of inferenceservice-config, set disableIstioVirtualHost to true; the rest stays")
        elif not ingress.get("disableIstioVirtualHost"):
            patch = json.dumps(
                {"data": {"ingress": json.dumps({**ingress, "disableIstioVirtualHost": True}, indent=2)}}
            )
            self.kubectl(
                "KServe", "patch", "configmap", "inferenceservice-config", "-n", "kserve", "--type=merge", "-p", patch
            )
            self.kubectl("KServe", "rollout", "restart", "deployment/kserve-controller-manager", "-n", "kserve")
        unused = ["llmisvc-controller-manager", "kserve-localmodel-controller-manager"]
        self.kubectl("KServe", "scale", "deployment", *unused, "-n", "kserve", "--replicas=0")

    def bring_images(self) -> None:
        inspect = [self.cluster.engine, "image", "inspect", "--format", "{{.Id}}", *self.images]
        ids = None if self.build else self.commands.ask(inspect)
        if ids is None:
            self.say("building the images")
            command = ["scripts/build-images", "--tool", self.cluster.engine, "--prefix", PREFIX, *self.build_flags]
            self.commands.run(command, "building the images", self.seconds, shown=True)
            ids = self.commands.ask(inspect) or ""
        mark = " ".join(ids.split())
        system = json.loads(self.ask("get", "namespace", "kube-system", "-o", "json") or "{}")
        if mark and (system.get("metadata", {}).get("annotations") or {}).get(DONE) == mark:
            self.say("the images are on the node")
            return
        self.say("bringing the images onto the node")
        with tempfile.TemporaryDirectory() as folder:
            archive = str(Path("/tmp" if self.commands.dry else folder) / "images.tar")  # noqa: S108 (printed only)
            command = [self.cluster.engine, "save", "--output", archive, *self.images]
            self.commands.run(command, "saving the images", self.seconds)
            self.cluster.load(archive, self.seconds)
        self.kubectl("the images", "annotate", "namespace", "kube-system", "--overwrite", f"{DONE}={mark}")

    def ask_for_a_poem(self) -> None:
        url = self.ask("get", "services.serving.knative.dev", "web", "-n", NAMESPACE, "-o", "jsonpath={.status.url}")
        host = urlsplit(url or f"http://web.{NAMESPACE}.{DOMAIN}").netloc
        address = f"http://127.0.0.1:{self.port}"
        body = json.dumps({"prompt": PROMPT}, ensure_ascii=False)
        command = ["curl", f"{address}/generate", "-H", f"Host: {host}", "-H", "Content-Type: application/json"]
        self.say("asking for a poem")
        flags = ["-sS", "--fail-with-body", "--max-time", f"{self.seconds:.0f}"]
        try:
            answer = self.commands.run([*command, *flags, "-d", body], "asking for a poem", self.seconds + 5)
        except Failure as failure:
            logs = ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/part-of=shangcai", "--all-containers"]
            raise Failure(f"{failure}; look at: {shlex.join(self.cluster.kubectl(*logs))}") from None
        if self.commands.dry:
            return
        try:
            poem = json.loads(answer)["text"]
        except (ValueError, KeyError, TypeError):
            raise Failure(
                f"asking for a poem: {address} does not answer with a text but with {answer[:200]!r}"
            ) from None
        print(f"\n{poem}\n\n{shlex.join([*command, '-d', body])}\n")
        print(f"Pages find it at http://{host}:{self.port}. kubectl knows the cluster as {self.cluster.context}.")
        print(
            f"scripts/doctor --url {address} --host {host} tries everything; scripts/cluster-down removes the cluster."
        )

    def apply(self, what: str, arguments: list[str], stdin: str = "") -> None:
        """Apply, again while webhooks and kinds that were installed a moment ago are not served yet."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                self.kubectl(what, "apply", *arguments, stdin=stdin, seconds=deadline - time.monotonic())
                return
            except Failure:
                if time.monotonic() + PAUSE_SECONDS > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)

    def wait(self, what: str, query: list[str], waiting: Callable[[list[Any]], list[str]], look_at: str) -> None:
        """Poll until nothing of it is `waiting`; say what is, whenever that changes."""
        if self.commands.dry:
            print(f"# until they run: {shlex.join(self.cluster.kubectl(*query))}")
            return
        begun = time.monotonic()
        said: list[str] = []
        while True:
            answer = self.ask(*query)
            rest = waiting(json.loads(answer)["items"]) if answer else ["the API server does not say"]
            if not rest:
                return
            passed = time.monotonic() - begun
            if rest != said:
                self.say(f"{passed:6.0f} s  {what} waits for {'; '.join(rest)}")
                said = rest
            if passed > self.seconds:
                looking = shlex.join(self.cluster.kubectl(*look_at.split()))
                raise Failure(f"{what} does not run after {self.seconds:.0f} s: {'; '.join(rest)}; look at: {looking}")
            time.sleep(min(PAUSE_SECONDS, self.seconds))

    def kubectl(self, what: str, *arguments: str, stdin: str = "", seconds: float | None = None) -> None:
        self.commands.run(self.cluster.kubectl(*arguments), what, self.seconds if seconds is None else seconds, stdin)

    def ask(self, *arguments: str) -> str | None:
        return self.commands.ask(self.cluster.kubectl(*arguments))

    def say(self, line: str) -> None:
        print(f"# {line}" if self.commands.dry else line, flush=True)


def not_available(deployments: list[Any]) -> list[str]:
    """Names of the Deployments that do not run as they are described now."""
    names = []
    for item in deployments:
        wanted, status = item["spec"].get("replicas", 1), item.get("status", {})
        current = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
        if not current or min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0)) < wanted:
            names.append(item["metadata"]["name"])
    return names


def not_ready(items: list[Any]) -> list[str]:
    """What is not Ready, with the reason that it gives."""
    found = []
    for item in items:
        conditions = {entry["type"]: entry for entry in item.get("status", {}).get("conditions", [])}
        ready = conditions.get("Ready", {})
        if ready.get("status") != "True":
            name = f"{item['kind']} {item['metadata']['name']}"
            found.append(f"{name} ({ready['reason']})" if ready.get("reason") else name)
    return found


def version() -> str:
    """Of the images that deploy/laptop names."""
    text: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return text


if __name__ == "__main__":
    sys.exit(main())
