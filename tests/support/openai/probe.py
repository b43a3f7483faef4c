"""What is asked of a method of OpenAI's clients, in a form that both clients can be given, and what came of it.

Arguments are JSON, but for objects of one member that stand for what JSON has none of: see `Client`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from contract import problems

State = Literal["works", "refused", "not offered"]
"""`refused` is by name: a 400 whose `param` is the parameter, or the end of a stream that says so."""

NOT_OFFERED = {problems.NOT_FOUND.slug, problems.METHOD_NOT_ALLOWED.slug, problems.NOT_IMPLEMENTED.slug}
"""Codes of errors: a response that is not there has another."""

Check = Callable[[Any], bool]
"""Whether an answer, as JSON, shows that the parameter has done what it is for."""

Arguments = Mapping[str, Any]


def refused(_answer: Any) -> bool:
    """Of a value that is to be refused: no answer is right."""
    return False


@dataclass(frozen=True)
class Probe:
    """One value of a parameter. `more` are other arguments that it needs."""

    parameter: str
    value: Any
    check: Check = refused
    more: Arguments = field(default_factory=dict)

    def arguments(self, base: Arguments) -> dict[str, Any]:
        merged = {**base, **self.more, self.parameter: self.value}
        return {name: value for name, value in merged.items() if value is not None or name == self.parameter}


@dataclass(frozen=True)
class MethodProbes:
    """Of one method, by Python's name for it. `base` is what every call of it has."""

    name: str
    base: Arguments
    probes: tuple[Probe, ...]
    javascript: str | None = ""
    """JavaScript's name where it is another one; None where it has no such method."""
    python: bool = True
    """Whether Python has it."""

    def named(self, language: str) -> str | None:
        """Its name there; None where that client has no such method."""
        if language == "python":
            return self.name if self.python else None
        return self.name if self.javascript == "" else self.javascript


class Client(Protocol):
    """An official client. In arguments it replaces `{"$file": name}` by that file, `{"$trip": …}` by its type of a trip
    and `{"$function": tool}` by that tool with a function to call."""

    language: str

    def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """`{"answer": …}`, with the events of a stream as a list; `{"error": {"status", "param", "message"}}` where the
        server has refused it, without a status where its stream had begun; `{"failure": text}` for anything else."""

    def close(self) -> None: ...


class ProbeFailed(Exception):
    """What is none of the three states."""


def state_of(outcome: Mapping[str, Any], probe: Probe) -> State:
    """Raises a ProbeFailed that says what came instead."""
    failed = _failure(outcome.get("answer"))
    if failed is not None:
        outcome = {"error": failed}
    if "answer" in outcome:
        with suppress(LookupError, StopIteration, TypeError, ValueError):  # of another shape than is looked for
            if probe.check(outcome["answer"]):
                return "works"
        raise ProbeFailed(f"answered, but not as it should: {str(outcome['answer'])[-900:]}")
    error = outcome.get("error")
    if error is None:
        raise ProbeFailed(str(outcome.get("failure"))[:400])
    named = str(error.get("param") or "").replace("[", ".").split(".")[0]
    if error.get("status") in (400, None) and named == probe.parameter:
        return "refused"
    if error.get("code") in NOT_OFFERED:
        return "not offered"
    raise ProbeFailed(str(error)[:400])


def _failure(answer: Any) -> dict[str, Any] | None:
    """What a streamed response has failed with: its model, once awake, has refused a field, which the message names."""
    last = answer[-1] if isinstance(answer, list) and answer else {}
    if last.get("type") != "response.failed":
        return None
    message = last["response"]["error"]["message"]
    return {"status": None, "param": message.partition(":")[0], "message": message}
