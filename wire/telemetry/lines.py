"""The one line that is logged of each request, and of each run of a job."""

from __future__ import annotations

import logging
import time
from typing import Any

from wire.telemetry.facts import Facts

LEAST_SECONDS = 0.001
"""Shorter phases are left out of the text."""


def log_request(log: logging.Logger, level: int, facts: Facts, told: dict[str, Any], status: int) -> None:
    """`told`: the method, the path and the client. `status` is 0 where there was no answer."""
    status = status or (499 if facts.client_left else 500)
    seconds = time.perf_counter() - facts.arrived
    if facts.generation_ended is not None:
        # The rest of the answer, so that the phases are the whole of it.
        left = max(seconds - (facts.generation_ended - facts.arrived), 0.0)
        facts.phases["deliver"] = facts.phases.get("deliver", 0.0) + left
    text = "%s %r -> %s in %.3f s%s, client %s%s, request %s"
    arguments = (
        told["method"],
        told["path"],  # %r: it may hold any character, a line feed that would fake a log line too
        status,
        seconds,
        ", the client left" if facts.client_left else "",
        told["client"],
        _caller_and_phases(facts),
        facts.request_id,
    )
    log.log(level, text, *arguments, extra=_members(facts, status, seconds) | told)


def log_run(log: logging.Logger, facts: Facts, state: str, attempts: int) -> None:
    """Of a job, how this replica's work on it has ended: with its end, or `queued` where others go on."""
    seconds = time.perf_counter() - facts.arrived
    text = "job %s %s in attempt %d, %.3f s after it was made%s, request %s"
    arguments = (facts.job_id, state, attempts, seconds, _caller_and_phases(facts), facts.request_id)
    log.info(text, *arguments, extra=_members(facts, state, seconds) | {"attempts": attempts})


def _caller_and_phases(facts: Facts) -> str:
    caller = f", caller {facts.caller}" if facts.caller else ""
    phases = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in facts.phases.items() if seconds >= LEAST_SECONDS)
    model = f", model {facts.model}" if facts.model else ""
    return f"{caller}{model}{f' ({phases})' if phases else ''}"


def _members(facts: Facts, status: int | str, seconds: float) -> dict[str, Any]:
    """What the line says, by keys that are the same in both servers; absent where it is not known."""
    members = {
        "request_id": facts.request_id,
        "job_id": facts.job_id,
        "trace_id": facts.trace_id,
        "caller": facts.caller,
        "route": facts.route,
        "model": facts.model,
        "status": status,
        "client_left": facts.client_left or None,
        "problem": facts.problem,
        "seconds": round(seconds, 4),
        "phases": {name: round(taken, 4) for name, taken in facts.phases.items()},
        "first_token_seconds": None if facts.first_token_seconds is None else round(facts.first_token_seconds, 4),
        "prompt_tokens": facts.prompt_tokens,
        "completion_tokens": facts.completion_tokens,
    }
    return {name: value for name, value in members.items() if value not in (None, {})}
