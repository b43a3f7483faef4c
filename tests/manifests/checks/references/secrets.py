"""Which Secrets our containers read, and what follows from them: who are web's callers, and whom predictors answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import Object, environment, our_image
from tests.manifests.checks.references.object_set import ObjectSet

CALLERS_FOLDER = "/etc/shangcai"
CALLERS_VOLUME = {
    "name": "callers",
    "secret": {"secretName": "web-callers", "optional": False, "items": [{"key": "callers", "path": "callers"}]},
}
CALLERS_MOUNT = {"name": "callers", "mountPath": CALLERS_FOLDER, "readOnly": True}
TOKEN = {"name": "predictor-token", "key": "token", "optional": False}
SECRET = {"name": "web-callers", "key": "secret", "optional": True}
STORE = {"name": "store", "key": "url", "optional": False}
PASSWORD = {"name": "store", "key": "password", "optional": False}
READ = {"PREDICTOR_TOKEN": TOKEN, "CALLERS_SECRET": SECRET, "STORE_URL": STORE, "REDIS_PASSWORD": PASSWORD}
"""Variables that come from Secrets."""


def check(_objects: ObjectSet, thing: Object) -> Iterator[str]:
    for container in thing.containers:
        for variable in container.get("env") or []:
            if ("value" in variable) == (variable["name"] in READ):
                yield f"env.{variable['name']}: must come from a Secret, or must not"
            elif "value" not in variable and variable["valueFrom"] != {"secretKeyRef": READ[variable["name"]]}:
                yield f"env.{variable['name']}: {variable['valueFrom']} is not the Secret that there is"
    mounts = [mount for container in thing.containers for mount in container.get("volumeMounts") or []]
    for volume in thing.pod.get("volumes") or []:
        if "secret" in volume and (volume != CALLERS_VOLUME or CALLERS_MOUNT not in mounts):
            yield f"volumes: {volume} is not the callers of web"


def check_callers(objects: ObjectSet) -> Iterator[str]:
    """Of a whole deployment."""
    ours = [(our_image(container), thing, container) for thing in objects.objects for container in thing.containers]
    tokens = {thing.title: "PREDICTOR_TOKEN" in environment(container) for image, thing, container in ours if image}
    if len(set(tokens.values())) > 1:
        yield f"some know the predictors' token and others do not: {tokens}"
    for image, thing, container in ours:
        if image == "web":
            yield from (f"{thing.title}: {problem}" for problem in _web(thing, container, any(tokens.values())))


def _web(thing: Object, container: dict[str, Any], has_token: bool) -> Iterator[str]:
    values = environment(container)
    if thing.name == "inbox":
        if values.get("ROUTES") != "inbox" or "CALLERS" in values:
            yield "must serve the routes of an inbox, which know no callers"
        return
    if "ROUTES" in values:
        yield "must serve all routes"
    if values.get("CALLERS") not in ("off", "keys"):
        yield "does not say who its callers are"
    if (values.get("CALLERS") == "keys") != has_token:
        yield "asks for keys where predictors do not ask for a token, or the other way round"
    if values.get("CALLERS") == "keys":
        if values.get("CALLERS_FILE") != f"{CALLERS_FOLDER}/callers":
            yield "does not know its callers"
        if "CALLERS_SECRET" not in values:
            yield "takes no secret that is given for the ids of their jobs"
        if CALLERS_VOLUME not in thing.pod["volumes"]:
            yield "has no volume of its callers"
    elif "CALLERS_FILE" in values:
        yield "has callers that it does not ask for"
