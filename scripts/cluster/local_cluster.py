"""What cluster-up and cluster-down share: commands that end in time, and the clusters that kind and minikube make."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass

MADE_BY = "shangcai.ai/made-by"
PORT = "shangcai.ai/port"
"""Labels of the nodes that cluster-up makes, written as they are made: what lacks them is somebody else's."""

NODE_PORT = 31080
"""Where Kourier listens on the node; the node's container passes on a port of this machine to it."""

QUESTION_SECONDS = 30.0


class Failure(Exception):
    """Something that the caller can mend; said in one line."""


@dataclass(frozen=True)
class Commands:
    """Runs commands, or only prints them when `dry`."""

    dry: bool = False

    def run(self, argv: list[str], what: str, seconds: float, stdin: str = "", shown: bool = False) -> str:
        """Run a command that must succeed within `seconds`; what it printed, unless that is `shown` to the user."""
        if self.dry:
            print(f"{shlex.join(argv)} <<'END'\n{stdin.rstrip()}\nEND" if stdin else shlex.join(argv))
            return ""
        try:
            status, output, errors = execute(argv, seconds, stdin, shown)
        except subprocess.TimeoutExpired:
            raise Failure(f"{what}: `{shlex.join(argv)}` took longer than {seconds:.0f} s") from None
        except OSError as error:
            raise Failure(f"{what}: {argv[0]} cannot be started: {error}") from None
        if status:
            said = (errors.strip() or output.strip() or "its lines above say why").splitlines()[-1]
            raise Failure(f"{what}: `{shlex.join(argv)}` ended with {status}: {said}")
        return output

    def ask(self, argv: list[str]) -> str | None:
        """What a command says that changes nothing; None where it fails. Not asked in a dry run: nothing is there."""
        if self.dry:
            return None
        with suppress(subprocess.TimeoutExpired, OSError):
            status, output, _ = execute(argv, QUESTION_SECONDS)
            return None if status else output
        return None


def execute(argv: list[str], seconds: float, stdin: str = "", shown: bool = False) -> tuple[int, str, str]:
    """Exit status, output and errors. What outlives `seconds` is ended with all that it has started."""
    into = None if shown else subprocess.PIPE
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=into, stderr=into, text=True, start_new_session=True)
    try:
        output, errors = process.communicate(stdin, max(seconds, 0.1))
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output or "", errors or ""


@dataclass(frozen=True)
class Cluster(ABC):
    """A cluster of one node on this machine, in a container of `engine`."""

    commands: Commands
    name: str
    engine: str

    @property
    @abstractmethod
    def context(self) -> str:
        """What kubectl calls it."""

    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def create(self, port: int, seconds: float) -> None:
        """Make it, with a port of this machine for Kourier."""

    @abstractmethod
    def load(self, archive: str, seconds: float) -> None:
        """Bring images onto its node."""

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


class Kind(Cluster):
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


class Minikube(Cluster):
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
        command += [f"--kubernetes-version=v{Kind.kubernetes}", "--cpus=4", "--memory=8g"]
        command += [f"--ports=127.0.0.1:{port}:{NODE_PORT}", f"--extra-config=kubelet.node-labels={labels}"]
        self.commands.run(command, "making a minikube cluster", seconds)

    def load(self, archive: str, seconds: float) -> None:
        command = ["minikube", "-p", self.name, "image", "load", archive]
        self.commands.run(command, "loading the images into the cluster", seconds)

    def removal(self) -> list[str]:
        return ["minikube", "delete", "-p", self.name]


KINDS: dict[str, type[Cluster]] = {"kind": Kind, "minikube": Minikube}
ENGINES = ("docker", "podman")


def find(tools: tuple[str, ...], dry: bool) -> str:
    """The first of these that is on the PATH."""
    for tool in tools:
        if shutil.which(tool):
            return tool
    if dry:
        return tools[0]
    raise Failure(f"{' or '.join(tools)} is needed, and {'neither is' if len(tools) > 1 else 'it is not'} on the PATH")


def find_cluster(commands: Commands, name: str, wanted: str | None) -> Cluster:
    """The cluster of that name, made or to be made with what there is on this machine."""
    find(("kubectl",), commands.dry)
    tool = find((wanted,) if wanted else tuple(KINDS), commands.dry)
    engine = find(ENGINES, commands.dry)
    if tool == "kind" and engine == "podman":
        os.environ.setdefault("KIND_EXPERIMENTAL_PROVIDER", "podman")
    return KINDS[tool](commands, name, engine)
