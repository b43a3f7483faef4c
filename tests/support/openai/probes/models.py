"""Probes of the list of models."""

from __future__ import annotations

from tests.support.openai.probe import MethodProbes, Probe

METHODS = (
    MethodProbes(
        "models.list",
        {},
        (Probe("", None, lambda answer: [one["id"] for one in answer["data"]] == ["poet", "painter", "caller"]),),
    ),
    MethodProbes("models.retrieve", {}, (Probe("model", "poet", lambda answer: answer["id"] == "poet"),)),
    MethodProbes("models.delete", {}, (Probe("model", "poet"),)),
)
