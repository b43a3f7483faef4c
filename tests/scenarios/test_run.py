"""scripts/run: one command, no orphans, one clear line for what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import ROOT, wait_until_gone
from tests.support.run import Start

pytestmark = pytest.mark.slow

POET = str(ROOT / "models" / "poet")


def all_gone(children: dict[str, int]) -> None:
    """Wait until no process of a run is left."""
    for pid in children.values():
        wait_until_gone(pid)


def test_ctrl_c_stops_everything_cleanly(start: Start) -> None:
    run = start("--model", POET)
    run.wait_until_ready()
    children = run.children()
    assert set(children) == {"predictor", "web"}
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 0
    all_gone(children)
    assert "Traceback" not in run.output


def test_a_signal_while_loading_stops_everything_cleanly(start: Start) -> None:
    run = start("--model", POET)
    run.wait_for("importing")
    children = run.children()
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    all_gone(children)
    assert "Traceback" not in run.output


def test_sigterm_stops_everything_cleanly_once_the_request_in_flight_is_finished(start: Start) -> None:
    run = start("--model", POET)
    run.wait_until_ready()
    children = run.children()
    with httpx2.stream("POST", f"{run.url}/generate", json={"prompt": "长江", "stream": True}, timeout=60) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("event: token"))
        run.process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "event: result" in rest
    assert run.wait() == 0
    all_gone(children)
    assert "Traceback" not in run.output


def test_web_that_dies_at_the_start_ends_the_run_with_one_line(start: Start) -> None:
    run = start("--model", POET)
    run.wait_for("importing")
    children = run.children()
    os.kill(children["web"], signal.SIGKILL)
    assert run.wait() == 1
    assert run.output.splitlines()[-1] == "scripts/run: web was ended by SIGKILL"
    all_gone(children)


def test_ctrl_c_in_the_first_moment_is_no_traceback(start: Start) -> None:
    run = start("--model", POET)
    while run.process.poll() is None:
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert run.wait() != 0
    assert run.output in ("", "\n")


def test_a_predictor_that_dies_at_the_start_ends_the_run_with_one_line(start: Start) -> None:
    run = start("--model", POET)
    run.wait_for("importing")
    children = run.children()
    os.kill(children["predictor"], signal.SIGKILL)
    assert run.wait() == 1
    assert run.output.splitlines()[-1] == "scripts/run: the predictor of poet was ended by SIGKILL"
    all_gone(children)


def test_a_port_in_use_is_said_in_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        run = start(port=listener.getsockname()[1])
        assert run.wait() == 1
    assert run.output == f"scripts/run: port {run.port} on 127.0.0.1 is in use\n"


def test_a_wrong_model_is_said_in_one_line(start: Start, tmp_path: Path) -> None:
    run = start("--model", str(tmp_path / "nothing"))
    assert run.wait() == 1
    assert run.output == f"scripts/run: there is no folder {tmp_path / 'nothing'}\n"
    assert "Traceback" not in run.output


def test_a_model_that_cannot_be_loaded_is_said_in_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    run = start("--model", str(tmp_path))
    assert run.wait() == 1
    assert run.output.splitlines()[-1].startswith(f"predictor: cannot load {tmp_path}: ")
    assert "Traceback" not in run.output


def test_a_wrong_flag_is_refused(start: Start) -> None:
    run = start("--no-such-flag")
    assert run.wait() == 2
    assert "unrecognized arguments: --no-such-flag" in run.output


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", POET, "--model", POET], "--model: two of them have the same name, poet, poet"),
        (["--model", POET, "--model", "gpt2", "--name", "x"], "--name: only one model can be given a name"),
    ],
)
def test_names_that_would_not_tell_models_apart_are_refused(start: Start, flags: list[str], said: str) -> None:
    run = start(*flags)
    assert run.wait() == 2
    assert said in run.output
