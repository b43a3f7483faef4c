"""Which labels a selector takes in, as Kubernetes reads it."""

from __future__ import annotations

from scripts.cluster.doctor.manifests import Document


def matches(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a label selector, or a term of a node affinity, takes in these labels; an empty one takes in all."""
    named: dict[str, str] = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in named.items()):
        return False
    return all(_satisfied(expression, labels) for expression in selector.get("matchExpressions") or [])


def _satisfied(expression: Document, labels: dict[str, str]) -> bool:
    value = labels.get(expression["key"])
    wanted: list[str] = expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:  # of node affinities only
            if value is None or not value.isdigit():
                return False
            return int(value) > int(wanted[0]) if operator == "Gt" else int(value) < int(wanted[0])
        case _:
            return False
