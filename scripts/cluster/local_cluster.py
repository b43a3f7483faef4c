"""The clusters that kind and minikube make on this machine, in a container of docker or podman."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass

from scripts.cluster.commands import Commands, find_tool
from scripts.cluster.components import CPUS, MEMORY_GIB

MADE_BY = "shangcai.ai/made-by"
PORT = "shangcai.ai/port"
"""Labels that cluster-up gives its nodes as it makes them. A cluster without them is somebody else's."""

NODE_PORT = 31080
"""Where Kourier listens on the node; the node's container forwards a port of this machine to it."""


@dataclass(frozen=True)
class LocalCluster(ABC):
    """A cluster of one node on this machine, in a container of `engine`."""

    commands: Commands
    name: str
    engine: str

    @property
    @abstractmethod
    def context(self) -> str:
        """Its name among kubectl's contexts."""

    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def create(self, port: int, seconds: float) -> None:
        """Make it, with Kourier at `port` of this machine; raises a Failure."""

    @abstractmethod
    def load(self, archive: str, seconds: float) -> None:
        """Load the images of a tar archive into its node; raises a Failure."""

    @abstractmethod
    def removal(self) -> list[str]:
        """The command that removes it."""

    def kubectl(self, *arguments: str) -> list[str]:
        return ["kubectl", "--context", self.context, *arguments]

    def made_with_port(self) -> int | None:
        """The port that cluster-up made it with; None where something else made it."""
        answer = self.commands.ask(self.kubectl("get", "nodes", "-l", f"{MADE_BY}=cluster-up", "-o", "json"))
        nodes = json.loads(answer)["items"] if answer else []
        return int(nodes[0]["metadata"]["labels"][PORT]) if nodes else None

    def answers(self) -> bool:
        return self.commands.ask(self.kubectl("get", "--raw", "/readyz")) is not None


class Kind(LocalCluster):
    kubernetes = "1.34.0"
    image = "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a"
    """Of the release notes of kind 0.30.0; later ones run it as well."""

    @property
    def context(self) -> str:
        return f"kind-{self.name}"

    def exists(self) -> bool:
        return self.name in (self.commands.ask(["kind", "get", "clusters"]) or "").split()

    def create(self, port: int, seconds: float) -> None:
        config = f"""\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    labels:
      {MADE_BY}: cluster-up
      {PORT}: "{port}"
    extraPortMappings:
      - containerPort: {NODE_PORT}
        hostPort: {port}
        listenAddress: 127.0.0.1
"""
        command = ["kind", "create", "cluster", "--name", self.name, "--image", self.image, "--config", "-"]
        self.commands.run([*command, "--wait", f"{seconds / 2:.0f}s"], "making a kind cluster", seconds, config)

    def load(self, archive: str, seconds: float) -> None:
        command = ["kind", "load", "image-archive", archive, "--name", self.name]
        self.commands.run(command, "loading the images into the cluster", seconds)

    def removal(self) -> list[str]:
        return ["kind", "delete", "cluster", "--name", self.name]


class Minikube(LocalCluster):
    @property
    def context(self) -> str:
        return self.name

    def exists(self) -> bool:
        answer = self.commands.ask(["minikube", "profile", "list", "-o", "json"])
        return answer is not None and self.name in [
            profile["Name"] for profile in json.loads(answer).get("valid") or []
        ]

    def create(self, port: int, seconds: float) -> None:
        labels = f"{MADE_BY}=cluster-up,{PORT}={port}"
        command = ["minikube", "start", "-p", self.name, f"--driver={self.engine}"]
        command += [f"--kubernetes-version=v{Kind.kubernetes}", f"--cpus={CPUS}", f"--memory={MEMORY_GIB}g"]
        command += [f"--ports=127.0.0.1:{port}:{NODE_PORT}", f"--extra-config=kubelet.node-labels={labels}"]
        self.commands.run(command, "making a minikube cluster", seconds)

    def load(self, archive: str, seconds: float) -> None:
        command = ["minikube", "-p", self.name, "image", "load", archive]
        self.commands.run(command, "loading the images into the cluster", seconds)

    def removal(self) -> list[str]:
        return ["minikube", "delete", "-p", self.name]


KINDS: dict[str, type[LocalCluster]] = {"kind": Kind, "minikube": Minikube}
ENGINES = ("docker", "podman")


def find_cluster(commands: Commands, name: str, wanted: str | None) -> LocalCluster:
    """The cluster of that name, which may not exist yet; raises a Failure if a tool for it is not on the PATH."""
    find_tool(("kubectl",), commands.dry)
    tool = find_tool((wanted,) if wanted else tuple(KINDS), commands.dry)
    engine = find_tool(ENGINES, commands.dry)
    if tool == "kind" and engine == "podman":
        os.environ.setdefault("KIND_EXPERIMENTAL_PROVIDER", "podman")
    return KINDS[tool](commands, name, engine)
