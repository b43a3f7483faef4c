"""Print docs/configuration.md from the settings: `python -m scripts.docs.configuration > docs/configuration.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_settings import BaseSettings

from predictor.plan_settings import PlanCommandSettings, PlanSettings
from predictor.settings import Settings as PredictorSettings
from scripts.docs.template import fill
from web.settings import Settings as WebSettings

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def describe() -> str:
    """The whole page, in Markdown."""
    plan = set(PlanSettings.model_fields)
    return fill(
        "configuration.md",
        {
            "web": "".join(table(WebSettings, set())),
            "predictor": "".join(table(PredictorSettings, plan)),
            "plan": "".join(table(PlanCommandSettings, set())),
        },
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
    bounds = [f"{sign} {schema[key]:.12g}" for key, sign in BOUNDS.items() if key in schema]
    if schema.get("minLength", 1) > 1:
        bounds.append(f"≥ {schema['minLength']} characters")
    kinds_of = {"array": "list", "object": "object", "boolean": "true, false"}
    return " ".join([kinds_of.get(schema["type"], schema["type"]), ", ".join(bounds)]).strip()


if __name__ == "__main__":
    print(describe(), end="")
