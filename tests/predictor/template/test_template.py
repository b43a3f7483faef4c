"""What a fork of the template has of its own, beside what any process has."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

import pytest

from predictor.template import __main__ as template_module
from predictor.template.__main__ import NVML_CHECK, Template


@pytest.fixture
def control() -> Iterator[socket.socket]:
    ours, others = socket.socketpair()
    with ours, others:
        yield ours


@pytest.mark.parametrize("set_before", [None, "1"])
def test_a_fork_looks_for_devices_as_a_fresh_process_does(
    monkeypatch: pytest.MonkeyPatch, control: socket.socket, set_before: str | None
) -> None:
    monkeypatch.setenv(NVML_CHECK, "")  # put back afterwards
    if set_before is None:
        monkeypatch.delenv(NVML_CHECK)
    else:
        monkeypatch.setenv(NVML_CHECK, set_before)
    seen: list[str | None] = []
    monkeypatch.setattr(template_module, "run", lambda: seen.append(os.environ.get(NVML_CHECK)))
    template = Template(control, os.getpid())
    assert os.environ[NVML_CHECK] == "1"
    template._run()
    assert seen == [set_before]


def test_a_fork_draws_other_numbers(monkeypatch: pytest.MonkeyPatch, control: socket.socket) -> None:
    monkeypatch.setenv(NVML_CHECK, "1")
    drawn: list[float] = []
    monkeypatch.setattr(template_module, "run", lambda: drawn.append(random.random()))
    template = Template(control, os.getpid())
    for _ in range(2):
        random.seed(0)
        template._run()
    assert drawn[0] != drawn[1]
