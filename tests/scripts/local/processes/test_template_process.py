"""What the supervisor makes of a template that answers, refuses, is silent or ends."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from predictor.imports.imported_modules import write_modules
from scripts.local.processes import template_process
from scripts.local.processes.start_backoff import BACKOFF_SECONDS, TRIES
from scripts.local.processes.template_process import TemplateProcess
from tests.support.processes import wait_until_gone

READY = '{"ready": 1048576}'

Make = Callable[..., TemplateProcess]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A template that gives these answers, one an order."""
    made: list[TemplateProcess] = []

    def start(*answers: str) -> TemplateProcess:
        (tmp_path / "answers").write_text("\n".join(answers))
        template = TemplateProcess([tmp_path / "modules"], ["/models/poet"])
        template._command = [sys.executable, "-m", "tests.scripts.local.processes.stub_template", f"{tmp_path}/answers"]
        made.append(template)
        template.start()
        return template

    yield start
    for template in made:
        template.stop()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def orders(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.orders").read_text().splitlines()]


def test_it_is_told_what_to_import_and_is_ready(make: Make, tmp_path: Path) -> None:
    template = make(READY, READY)
    assert (template.state, template.due(time.monotonic())) == ("starting", False)
    assert template.read()
    assert template.document() == {"state": "ready", "resident_bytes": 1048576, "why": None}
    template.learn()
    assert template.state == "ready", "nothing is new"
    write_modules(tmp_path / "modules")
    template.learn()
    assert template.document()["state"] == "starting"
    assert not template.read(), "it is no news that it is ready"
    assert template.state == "ready"
    told = {"modules": [str(tmp_path / "modules")]}
    assert orders(tmp_path) == [{**told, "tokenizers": ["/models/poet"]}, {**told, "tokenizers": []}]


def test_a_fork_is_a_process_of_ours(make: Make, listener: socket.socket, tmp_path: Path) -> None:
    template = make(READY, f'{{"pid": {os.getpid()}}}')
    template.read()
    process = template.fork("poet", ["--name", "poet"], {"A": "b"}, listener)
    assert process is not None
    assert process.pid == os.getpid()
    assert orders(tmp_path)[1] == {"name": "poet", "arguments": ["--name", "poet"], "variables": {"A": "b"}}
    assert template.state == "ready"


def test_nothing_is_forked_before_it_is_ready(make: Make, listener: socket.socket) -> None:
    assert make(READY).fork("poet", [], {}, listener) is None


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([READY, '{"refused": "a.py has changed"}'], "a.py has changed"),
        ([READY], "it has ended"),
        ([READY, "silence"], "it has not answered for 0.3 s"),
    ],
)
def test_what_cannot_be_forked_starts_afresh_and_the_template_again(
    make: Make, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, answers: list[str], why: str
) -> None:
    monkeypatch.setattr(template_process, "FORK_SECONDS", 0.3 if "silence" in answers else 60)
    template = make(*answers)
    [pid] = template.pids
    template.read()
    assert template.fork("poet", [], {}, listener) is None
    assert (template.state, template.why, template.pids, template.control) == ("off", why, [], None)
    wait_until_gone(pid)
    now = time.monotonic()
    assert not template.due(now)
    assert template.due(now + BACKOFF_SECONDS[0])
    assert not template.given_up


def test_one_that_refuses_to_be_one_is_given_up_after_some_tries(make: Make) -> None:
    template = make('{"refused": "a.py has changed"}')
    for _ in range(TRIES):
        assert not template.given_up
        if template.state == "off":
            template.start()
        assert template.read()
    assert template.given_up
    assert not template.due(time.monotonic() + 1_000)
    assert template.document()["why"] == "a.py has changed"


def test_one_that_is_of_no_use_is_given_up_at_once(make: Make) -> None:
    template = make('{"useless": "it takes 500 MiB of memory, more than 400"}')
    assert template.read()
    assert template.given_up
    assert template.document()["why"] == "it takes 500 MiB of memory, more than 400"


def test_one_that_is_never_ready_is_ended(make: Make) -> None:
    template = make("silence")
    [pid] = template.pids
    now = time.monotonic()
    assert not template.overdue(now)
    assert template.overdue(now + template_process.STARTING_SECONDS)
    assert (template.state, template.why) == ("off", "it was not ready after 120 s")
    wait_until_gone(pid)
    assert not template.overdue(now + 1_000)


@pytest.mark.parametrize("failing", ["spawn", "socket.socketpair"])
def test_one_that_cannot_be_started_is_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no memory is left")

    monkeypatch.setattr(f"{template_process.__name__}.{failing}", fail)
    template = make(READY)
    assert (template.state, template.control, template.pids) == ("off", None, [])
    assert template.why == "it cannot be started: no memory is left"
    assert template.due(time.monotonic() + BACKOFF_SECONDS[0])


def test_its_socket_is_known_until_it_is_closed(make: Make) -> None:
    template = make("silence")
    forgotten: list[int] = []
    template.on_close = lambda control: forgotten.append(control.fileno())
    assert template.control is not None
    number = template.control.fileno()
    template.stop()
    assert forgotten == [number]


def test_one_that_dies_while_it_imports_is_noticed(make: Make) -> None:
    template = make("silence")
    [pid] = template.pids
    os.kill(pid, 9)
    assert template.read()
    assert (template.state, template.why) == ("off", "it has ended")
