"""Random JSON Schemas that any text which a random model writes can fulfil in a few tokens."""

from __future__ import annotations

import json
import random
from typing import Any

MOST_DEPTH = 2


def random_schema(seed: int) -> dict[str, Any]:
    """An object, with every kind of value somewhere among the seeds, and with references."""
    chance = random.Random(seed)
    schema = _object(chance, 0)
    if chance.random() < 0.3:
        schema["$defs"] = {"shared": _value(chance, MOST_DEPTH)}
        schema["properties"]["shared"] = {"$ref": "#/$defs/shared"}
        schema["required"].append("shared")
    return schema


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(["a", "name", "größe", "名", "with space", 'quo"te', "k_1"], chance.randint(1, 3))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _value(chance, depth + 1) for name in names},
        "required": [name for name in names if chance.random() < 0.7],
        "additionalProperties": False,
    }
    if chance.random() < 0.2:
        schema["description"] = "Says nothing about the value."
    return schema


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    if chance.random() < 0.2:
        return {"type": "array", "prefixItems": [_value(chance, depth + 1), _leaf(chance)], "items": False}
    least = chance.randint(0, 2)
    return {"type": "array", "items": _value(chance, depth + 1), "minItems": least, "maxItems": least + 1}


def _value(chance: random.Random, depth: int) -> dict[str, Any]:
    if depth < MOST_DEPTH and chance.random() < 0.4:
        return chance.choice([_object, _array])(chance, depth)
    kind = chance.random()
    if kind < 0.1:
        return {"anyOf": [_leaf(chance), {"type": "null"}]}
    if kind < 0.15:
        return {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 99}]}
    return _leaf(chance)


def _leaf(chance: random.Random) -> dict[str, Any]:
    low = chance.randint(-200, 200)
    return chance.choice(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"enum": chance.sample(["x", "y z", 1, 2.5, None, True, "月"], chance.randint(1, 4))},
            {"const": chance.choice(["fixed", 7, [1, 2], {"k": False}])},
            {"type": "integer", "minimum": low, "maximum": low + chance.randint(0, 500)},
            {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 1000, "multipleOf": chance.choice([2, 5])},
            {"type": "number", "minimum": 0, "maximum": chance.choice([1, 7.5])},
            {"type": "string", "minLength": chance.randint(0, 3), "maxLength": chance.randint(3, 8)},
            {"type": "string", "pattern": chance.choice(["^[a-f]{2,4}$", "^(ab|cd)+e$", "^[0-9]{3}-[0-9]{2}$"])},
            {"type": "string", "format": chance.choice(["date", "uuid", "ipv4"])},
            {"type": ["string", "null"], "maxLength": 4},
        ]
    )


def is_json_of(text: str, schema: dict[str, Any]) -> bool:
    """Whether it is, and without white space between its values but for a space after , and :"""
    import jsonschema

    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    return text == text.strip() and "\n" not in text
