"""The objects of one folder, found by name and by label."""

from __future__ import annotations

from typing import Any

from tests.manifests.checks.objects import Object


class ObjectSet:
    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects
        self.named = {(thing.kind, thing.name): thing for thing in objects}
        self.predictors = {thing.name: thing for thing in objects if thing.kind.startswith("InferenceService")}

    def pods(self, selector: dict[str, Any]) -> list[Object]:
        """The objects whose pods a label selector selects."""
        return [thing for thing in self.objects if thing.template and selects(selector, pod_labels(thing))]


def pod_labels(thing: Object) -> dict[str, str]:
    return (thing.template.get("metadata") or {}).get("labels") or {}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return wanted.items() <= labels.items() and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"] for each in expressions
    )


def kind_of(reference: dict[str, str]) -> str:
    """With its group, as that of an object: Service.serving.knative.dev."""
    return Object({"apiVersion": reference["apiVersion"], "kind": reference["kind"], "metadata": {}}).kind
