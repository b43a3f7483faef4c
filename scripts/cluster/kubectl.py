"""What cluster-up does with kubectl: apply, wait, and remember what it has installed."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripts.cluster.commands import Failure
from scripts.cluster.local_cluster import LocalCluster

INSTALLED = "shangcai.ai/cluster-up"
"""Annotation of a namespace: what was brought into it, written once that runs."""

PAUSE_SECONDS = 2.0
"""Between two attempts to apply, and between two polls."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster. A step that changes something fails with a Failure, at the latest after `seconds`."""

    cluster: LocalCluster
    seconds: float

    def apply(self, what: str, arguments: list[str], stdin: str = "") -> None:
        """Apply manifests, again and again until it succeeds or the time is over.

        Webhooks and kinds that were installed a moment ago may not be served yet.
        """
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                self.run(what, "apply", *arguments, stdin=stdin, seconds=deadline - time.monotonic())
                return
            except Failure:
                if time.monotonic() + PAUSE_SECONDS > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)

    def wait(self, what: str, query: list[str], waiting: Callable[[list[Any]], list[str]], look_at: str) -> None:
        """Poll the items of `query` until none is left `waiting`; print what is, whenever that changes.

        `look_at` are the arguments of a kubectl that tells more, for the Failure after `seconds`.
        """
        if self.cluster.commands.dry:
            print(f"# until they run: {shlex.join(self.cluster.kubectl(*query))}")
            return
        begun = time.monotonic()
        printed: list[str] = []
        while True:
            answer = self.ask(*query)
            pending = waiting(json.loads(answer)["items"]) if answer else ["the API server does not say"]
            if not pending:
                return
            passed = time.monotonic() - begun
            if pending != printed:
                self.say(f"{passed:6.0f} s  {what} waits for {'; '.join(pending)}")
                printed = pending
            if passed > self.seconds:
                looking = shlex.join(self.cluster.kubectl(*look_at.split()))
                raise Failure(
                    f"{what} does not run after {self.seconds:.0f} s: {'; '.join(pending)}; look at: {looking}"
                )
            time.sleep(min(PAUSE_SECONDS, self.seconds))

    def run(self, what: str, *arguments: str, stdin: str = "", seconds: float | None = None) -> None:
        """Run a kubectl that changes something; `what` names the step in messages."""
        limit = self.seconds if seconds is None else seconds
        self.cluster.commands.run(self.cluster.kubectl(*arguments), what, limit, stdin)

    def ask(self, *arguments: str) -> str | None:
        """What a kubectl that changes nothing prints; None if it fails, or in a dry run."""
        return self.cluster.commands.ask(self.cluster.kubectl(*arguments))

    def say(self, line: str) -> None:
        print(f"# {line}" if self.cluster.commands.dry else line, flush=True)

    def installed(self, namespace: str) -> str | None:
        """What `record_installed` has recorded there."""
        answer = json.loads(self.ask("get", "namespace", namespace, "-o", "json") or "{}")
        mark: str | None = (answer.get("metadata", {}).get("annotations") or {}).get(INSTALLED)
        return mark

    def record_installed(self, what: str, namespace: str, mark: str) -> None:
        self.run(what, "annotate", "namespace", namespace, "--overwrite", f"{INSTALLED}={mark}")
