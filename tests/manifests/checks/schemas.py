"""The CRDs' own schemas, applied strictly: what the API server checks for `kubectl apply --validate=strict`.

They are read from ../shared/crds, beside the repository, where that is. Rules in CEL are not evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from tests.manifests.checks.objects import Object

FOLDER = Path(__file__).parents[4] / "shared" / "crds"


def check(thing: Object) -> Iterator[str]:
    validator = _validator(thing.document["apiVersion"], thing.document["kind"])
    if validator is None:
        return
    for error in validator.iter_errors(thing.document):
        yield f"{error.json_path}: {error.message[:200]}"


@cache
def _validator(api_version: str, kind: str) -> Draft202012Validator | None:
    path = FOLDER / f"{api_version.replace('/', '_')}_{kind}.json"
    if not path.exists():
        return None
    return Draft202012Validator(strict(json.loads(path.read_text()), root=True), format_checker=FormatChecker())


def strict(schema: Any, root: bool = False) -> Any:
    """As JSON Schema, in which only the named properties are allowed."""
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("nullable"):
        made["type"] = [schema["type"], "null"]
        made.pop("nullable")
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
        made.pop("anyOf", None)
    if "properties" in made:
        made["properties"] = {name: strict(item) for name, item in made["properties"].items()}
    if isinstance(made.get("items"), dict):
        made["items"] = strict(made["items"])
    if isinstance(made.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(made["additionalProperties"])
    open_ = schema.get("x-kubernetes-preserve-unknown-fields")
    if made.get("type") == "object" and "additionalProperties" not in made and not open_:
        made["additionalProperties"] = False
    if root:  # the API server adds these itself
        for name in ("apiVersion", "kind"):
            made.setdefault("properties", {}).setdefault(name, {"type": "string"})
        made["properties"]["metadata"] = METADATA
    return made


_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253},
        "namespace": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "labels": _STRINGS,
        "annotations": _STRINGS,
    },
}
