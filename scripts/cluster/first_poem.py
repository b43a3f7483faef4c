"""Asks the new cluster for a poem, and shows how that is done."""

from __future__ import annotations

import json
import shlex
from urllib.parse import urlsplit

from scripts.cluster.commands import Failure
from scripts.cluster.installation import DOMAIN
from scripts.cluster.kubectl import Kubectl

PROMPT = "写一首关于春雨的诗"


def ask_for_a_poem(kubectl: Kubectl, namespace: str, port: int) -> None:
    """Print a poem that web in `namespace` gives at `port` of this machine; raises a Failure if it gives none."""
    commands = kubectl.cluster.commands
    url = kubectl.ask("get", "services.serving.knative.dev", "web", "-n", namespace, "-o", "jsonpath={.status.url}")
    host = urlsplit(url or f"http://web.{namespace}.{DOMAIN}").netloc
    address = f"http://127.0.0.1:{port}"
    body = json.dumps({"prompt": PROMPT}, ensure_ascii=False)
    command = ["curl", f"{address}/generate", "-H", f"Host: {host}", "-H", "Content-Type: application/json"]
    kubectl.say("asking for a poem")
    flags = ["-sS", "--fail-with-body", "--max-time", f"{kubectl.seconds:.0f}"]
    try:
        answer = commands.run([*command, *flags, "-d", body], "asking for a poem", kubectl.seconds + 5)
    except Failure as failure:
        logs = ["logs", "-n", namespace, "-l", "app.kubernetes.io/part-of=shangcai", "--all-containers"]
        raise Failure(f"{failure}; look at: {shlex.join(kubectl.cluster.kubectl(*logs))}") from None
    if commands.dry:
        return
    try:
        poem = json.loads(answer)["text"]
    except (ValueError, KeyError, TypeError):
        raise Failure(f"asking for a poem: {address} does not answer with a text but with {answer[:200]!r}") from None
    print(f"\n{poem}\n\n{shlex.join([*command, '-d', body])}\n")
    print(f"Pages find it at http://{host}:{port}. kubectl knows the cluster as {kubectl.cluster.context}.")
    print(f"scripts/doctor --url {address} --host {host} tries everything; scripts/cluster-down removes the cluster.")
