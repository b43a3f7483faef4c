"""Print docs/configuration.md from the settings: `python -m scripts.docs.configuration > docs/configuration.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_settings import BaseSettings

from predictor.settings import PlanSettings
from predictor.settings import Settings as PredictorSettings
from web.settings import Settings as WebSettings

HEAD = """\
# Configuration

Every setting of the two servers and of `python -m predictor plan` is a command line flag and an environment variable.
A flag wins over a variable. In a variable, lists and objects are written as JSON. A value that is not allowed ends the
start with one line that names the flag, and exit status 2.

This page is made by `python -m scripts.docs.configuration`; a test keeps it true.

Contents: [web](#web) · [predictor](#predictor) · [predictor plan](#predictor-plan) ·
[other variables](#other-variables) · [scripts/run](#scriptsrun)

"""

WEB = """\
## web

`python -m web`. Only `--models` is required.

"""

PREDICTOR = """\
## predictor

`python -m predictor`. Each variable has the prefix `PREDICTOR_`. The settings of [`plan`](#predictor-plan) are settings
of the server, too; these are the others:

"""

PLAN = """\
## predictor plan

`python -m predictor plan` loads a model, measures it, and prints the fields of its InferenceService. The server takes
these flags and variables as well.

"""

OTHERS = """\
## Other variables

These have no prefix, because others than us set them or read them.

| variable | read by | meaning |
|---|---|---|
"""

VARIABLES = [
    ("INFERENCE_SERVICE_NAME", "predictor", "the served name where `--name` is not set; KServe sets it"),
    (
        "ARTIFACTS_URL, STORE_URL, K_SINK, K_CE_OVERRIDES",
        "predictor",
        "the same as with the prefix, which wins",
    ),
    (
        "KUBERNETES_SERVICE_HOST",
        "web",
        "set in every pod; where it is, `POST /events` takes nothing until `EVENTS_AUDIENCE`, `EVENTS_SECRET` or "
        "`EVENTS_OPEN` is set",
    ),
    ("OMP_NUM_THREADS", "predictor", "threads of torch on a CPU; at most the container's CPU limit when unset"),
    ("HF_TOKEN, HF_HOME, HF_HUB_OFFLINE", "predictor", "as huggingface_hub has them, for models named by hub ids"),
    (
        "LISTEN_PID, LISTEN_FDS, NOTIFY_SOCKET",
        "predictor",
        "systemd's protocols for an inherited socket and for saying that it is ready; `scripts/run` sets them",
    ),
    ("KUBECONFIG, SHANGCAI_URL, SHANGCAI_OVERLAY", "tests/cluster", "the cluster, its ingress, the overlay to test"),
]

RUN = """\

## scripts/run

`scripts/run --help` lists its flags; `PORT` is the default of `--port`. It starts both servers on 127.0.0.1 and passes
its environment on: `GENERATE_SECONDS=60 scripts/run` sets web's `--generate-seconds`.
"""

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def describe() -> str:
    """The whole page, in Markdown."""
    plan = set(PlanSettings.model_fields)
    return "".join(
        [
            HEAD,
            WEB,
            *table(WebSettings, set()),
            PREDICTOR,
            *table(PredictorSettings, plan),
            PLAN,
            *table(PlanSettings, set()),
            OTHERS,
            *others(),
            RUN,
        ]
    )


def table(settings: type[BaseSettings], left_out: set[str]) -> Iterator[str]:
    """The settings of a class by their flags, without those named in `left_out`."""
    yield "| flag | variable | default | allowed | meaning |\n|---|---|---|---|---|\n"
    schema = settings.model_json_schema()
    prefix = settings.model_config.get("env_prefix") or ""
    required = schema.get("required", [])
    for name, entry in schema["properties"].items():
        if name in left_out:
            continue
        flag = name.replace("_", "-")
        default = "required" if name in required else written(entry.get("default"))
        cells = (f"`--{flag}`", f"`{prefix}{name.upper()}`", default, allowed(entry), entry["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    yield "\n"


def others() -> Iterator[str]:
    for names, reader, meaning in VARIABLES:
        yield f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {reader} | {meaning} |\n"


def written(default: Any) -> str:
    if default is None or default == "":
        return "unset"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema lets through, in a few words."""
    if "anyOf" in schema:
        kinds = [allowed(kind) for kind in schema["anyOf"] if kind != {"type": "null"}]
        return kinds[0]
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    bounds = [f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if key in schema]
    kinds_of = {"array": "list", "object": "object", "boolean": "true, false"}
    return " ".join([kinds_of.get(schema["type"], schema["type"]), ", ".join(bounds)]).strip()


if __name__ == "__main__":
    print(describe(), end="")
