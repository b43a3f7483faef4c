"""What `scripts/run --status` prints."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any


def print_status(state: Mapping[str, Any] | None, port: int) -> int:
    """Print a line for each model of a state file (see run_folder), None if nothing runs; returns the exit status."""
    if state is None:
        print(f"scripts/run: nothing runs on port {port} that scripts/run has started", file=sys.stderr)
        return 1
    for name, model in state["models"].items():
        print(_line(name, model))
    template = state.get("template")
    if template:
        print("template: " + _template(template))
    return 0


def _template(template: Mapping[str, Any]) -> str:
    parts = [str(template["state"])]
    if template["resident_bytes"]:
        parts.append(f"{template['resident_bytes'] >> 20} MiB of memory")
    if template["why"]:
        parts.append(template["why"])
    return "; ".join(parts)


def _line(name: str, model: Mapping[str, Any]) -> str:
    now = time.time()
    since = time.strftime("%H:%M:%S", time.localtime(model["since"]))
    parts = [f"{name}: {model['state']} since {since}, {now - model['since']:.0f} s"]
    if model["phase"]:
        parts.append(model["phase"])
    if model["state"] == "asleep" and model["wake_seconds"]:
        parts.append(f"wakes up in {statistics.median(model['wake_seconds']):.1f} s")
    if model["why"]:
        parts.append(model["why"])
    if model["retry_at"]:
        parts.append(f"a request starts it again in {max(model['retry_at'] - now, 0):.0f} s")
    return "; ".join(parts)
