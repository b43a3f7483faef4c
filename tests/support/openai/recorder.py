"""Tries probes with the official clients, each with all models asleep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import openai

from tests.support.openai.deployment import Deployment
from tests.support.openai.javascript_client import JavaScriptClient
from tests.support.openai.probe import Client, MethodProbes, Probe, ProbeFailed, State, state_of
from tests.support.openai.probes import chat, completions, images, models, responses
from tests.support.openai.python_client import PythonClient
from tests.support.openai.signatures import REQUEST_OPTIONS, javascript_signatures, python_signatures
from tests.support.waiting import wait_until

METHODS: tuple[MethodProbes, ...] = (
    *chat.METHODS,
    *completions.METHODS,
    *responses.METHODS,
    *images.METHODS,
    *models.METHODS,
)
RUNNING = ("queued", "in_progress")
CAMEL = {"response_id": "responseID", "completion_id": "completionID"}
SNAKE = {camel: snake for snake, camel in CAMEL.items()}


def parameters_of(method: MethodProbes, language: str, signatures: dict[str, list[str]]) -> list[str]:
    """By Python's names; none where that client has no such method."""
    name = method.named(language)
    return [SNAKE.get(one, one) for one in signatures[name]] if name else []


class Recorder:
    """The clients in front of one deployment."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        """`folder` is a `program_folder`."""
        self._deployment = deployment
        clients: list[Client] = [PythonClient(deployment.url), JavaScriptClient(deployment.url, folder)]
        self._clients = {client.language: client for client in clients}
        self._maker = openai.OpenAI(base_url=deployment.url, api_key="none")
        self.signatures = {"python": python_signatures(), "javascript": javascript_signatures(folder)}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._maker.close()

    def languages(self, method: MethodProbes, probe: Probe) -> Iterator[str]:
        """Those whose client has the parameter."""
        for language, signatures in self.signatures.items():
            taken = ("", *REQUEST_OPTIONS, *parameters_of(method, language, signatures))
            if method.named(language) and probe.parameter in taken:
                yield language

    def state(self, method: MethodProbes, probe: Probe, language: str) -> State:
        """What comes of a value. Raises a ProbeFailed where it is none of the three states."""
        name = method.named(language)
        assert name is not None
        arguments = self._made("$response", self._spelt(language, name, probe.arguments(method.base)))
        self._deployment.sleep()
        arguments = self._made("$begun", arguments)
        outcome = self._clients[language].call(name, arguments)
        self._wait_for(arguments.get("response_id", arguments.get("responseID")), outcome.get("answer"))
        try:
            return state_of(outcome, probe)
        except ProbeFailed as failure:
            raise ProbeFailed(f"{language} {name} {probe.parameter}={probe.value!r}: {failure}") from None

    def _made(self, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """With the id of a response in the place of each `{what: arguments}`: `$response` is made before the models
        fall asleep, and `$begun` is one in the background, which wakes its model."""
        made = dict(arguments)
        for name, value in arguments.items():
            if isinstance(value, dict) and value.keys() == {what}:
                made[name] = self._maker.responses.create(**value[what]).id
        return made

    def _wait_for(self, asked: str | None, answer: Any) -> None:
        """Until nothing runs in the background any more: what needs a model would wake it again and again."""
        begun = answer.get("id") if isinstance(answer, dict) and answer.get("status") in RUNNING else None
        for id in filter(None, (asked, begun)):
            with suppress(openai.NotFoundError):  # deleted
                wait_until(partial(self._has_ended, id), f"{id} has ended")

    def _has_ended(self, id: str) -> bool:
        return self._maker.responses.retrieve(id).status not in RUNNING

    def _spelt(self, language: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments by the names that the language has for them."""
        taken = self.signatures[language][name]
        spelt = {CAMEL[one] if CAMEL.get(one) in taken else one: value for one, value in arguments.items()}
        spelt.pop("", None)
        return spelt
