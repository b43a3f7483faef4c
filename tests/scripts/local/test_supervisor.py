"""The supervisor with real sockets and processes: it wakes models, reports failures and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.local.run_folder import RunFolder
from tests.support.processes import ROOT, wait_until_gone
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

Start = Callable[..., Any]


def test_a_predictor_that_is_idle_leaves_and_a_request_starts_the_next(start: Start) -> None:
    run = start(idle=1, wait=False)
    run.wait_for("waking")
    first = run.predictor()
    run.wait_until_up()
    run.wait_for("asleep")
    wait_until_gone(first)
    assert run.starts() == 1

    assert run.ask().text.endswith("data: [DONE]\n\n")

    assert run.starts() == 2
    run.wait(lambda: len(run.state()["wake_seconds"]) == 2)
    run.wait_for("asleep")


def test_one_screen_of_a_run_shows_its_models_and_wakes_none(start: Start) -> None:
    run = start(wait=False)
    run.wait_until_up()
    run.wait_for("asleep")
    command = [sys.executable, "-m", "scripts.local.top", "--once", "--every", "1", "--url", run.url]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^stub-0 +asleep, \d s +\S+/3 ", shown.stdout, re.MULTILINE), shown.stdout
    assert run.state()["state"] == "asleep"
    assert run.starts() == 1


def test_the_state_says_where_webs_metrics_are(start: Start) -> None:
    run = start()
    state = RunFolder(run.port).read()
    assert state
    said = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/metrics", state["metrics_url"])
    assert said
    assert f"METRICS_PORT={said[1]}".encode() in Path(f"/proc/{run.web()}/environ").read_bytes().split(b"\0")


def test_a_model_never_falls_asleep_with_idle_0(start: Start) -> None:
    run = start(idle=0)
    time.sleep(1.5)  # three times as long as the shortest idleness here
    assert run.state()["state"] == "ready"


def test_many_simultaneous_requests_start_one_predictor(start: Start) -> None:
    run = start("--models", "2")
    run.wait_for("asleep", "stub-0")
    run.wait_for("asleep", "stub-1")
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: run.ask(), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert run.starts("stub-0") == 2
    assert run.starts("stub-1") == 1  # the other one got no request


def test_a_request_through_web_wakes_the_model(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    answer = httpx2.post(f"{run.url}/generate", json={"prompt": "0 moon"}, timeout=60)
    assert answer.json()["text"] == "0 moon"


def test_a_model_that_cannot_be_loaded_answers_503_everywhere_and_recovers(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    run.behave("fail there is no folder /models/gone")

    answer = run.ask()  # waits while starts are tried again

    url = run.state()["url"]
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:shangcai:problem:unavailable"
    assert problem["detail"] == "Model stub-0 cannot be started: there is no folder /models/gone"
    assert problem["phase"] == "failed"
    assert answer.headers["retry-after"] == str(problem["retry_after"])
    state = run.state()
    assert (state["state"], state["why"]) == ("failed", "there is no folder /models/gone")
    assert 0 < state["retry_at"] - time.time() < 5
    starts = run.starts()
    for path in ("/v1/models/stub-0", "/v2/health/live", "/openai/v1/models", "/"):
        assert httpx2.get(url + path).json()["detail"] == problem["detail"]
    through_web = httpx2.post(f"{run.url}/generate", json={"prompt": "0 moon"}, timeout=60)
    assert through_web.status_code == 503
    assert through_web.headers["retry-after"]
    assert run.starts() == starts or time.time() > state["retry_at"]

    run.behave_normally()
    run.wait(lambda: run.state()["retry_at"] is None)
    assert run.ask().status_code == 200
    assert run.state()["why"] is None


def test_a_predictor_that_is_killed_while_it_wakes_is_started_again_for_waiting_requests(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    run.behave("hang")
    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(run.ask) for _ in range(3)]
        run.wait_for("waking")
        run.behave_normally()
        os.kill(run.predictor(), signal.SIGKILL)
        assert {one.result().status_code for one in asking} == {200}
    assert run.starts() == 3


def test_a_predictor_that_dies_at_each_start_is_restarted_with_backoff(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    run.behave("die")
    begun = time.monotonic()
    answer = run.ask()
    assert answer.json()["detail"].endswith("its predictor was ended by SIGKILL while loading")
    assert time.monotonic() - begun >= 3  # 1 + 2 seconds of back-off
    assert run.starts() == 4


def test_a_predictor_that_exits_at_each_start_is_restarted_with_backoff(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    run.behave("leave")
    assert run.ask().status_code == 503
    assert run.starts() == 4


def test_a_predictor_that_dies_during_a_request_is_started_anew_and_asked_again(start: Start) -> None:
    run = start(idle=5)
    with httpx2.Client(base_url=run.url, timeout=60) as web, ThreadPoolExecutor(1) as clients:
        asking = clients.submit(web.post, "/generate", json={"prompt": "5 moon"})
        run.wait(lambda: _established(run.state()["url"]))
        killed = run.predictor()
        os.kill(killed, signal.SIGKILL)
        assert asking.result().json()["text"] == "5 moon"
        assert run.predictor() != killed


@pytest.mark.parametrize("behaviour", ["", "hang"])
def test_killing_the_supervisor_leaves_no_process(start: Start, behaviour: str) -> None:
    run = start(idle=30 if not behaviour else 0.3)
    if behaviour:
        run.wait_for("asleep")
        run.behave(behaviour)
        threading.Thread(target=lambda: _ignore(run.ask), daemon=True).start()
        run.wait_for("waking")
    children = run.children()
    assert len(children) == 2
    run.process.kill()
    for pid in children:
        wait_until_gone(pid)
    assert run.state() == {"state": "unknown"}  # the state file that it left is not believed


def test_sigterm_while_all_models_are_asleep_ends_at_once(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    children = run.children()
    assert run.end() == 0
    for pid in children:
        wait_until_gone(pid)


def test_sigterm_while_a_model_wakes_still_answers_the_waiting_request(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    run.behave("die")
    with ThreadPoolExecutor(1) as clients:
        asking = clients.submit(httpx2.post, f"{run.url}/generate", json={"prompt": "0 moon"}, timeout=60)
        run.wait(lambda: run.starts() == 2)
        run.behave_normally()
        assert run.end() == 0
        assert asking.result().json()["text"] == "0 moon"


def test_a_model_that_begins_asleep_is_started_by_its_first_request(start: Start) -> None:
    run = start("--models", "2", "--asleep", "1")
    assert run.state("stub-1")["state"] == "asleep"
    assert run.starts("stub-1") == 0
    assert run.ask(name="stub-1").status_code == 200
    assert run.starts("stub-1") == 1


def test_what_is_wrong_with_a_model_that_begins_asleep_is_told_and_the_others_are_served(start: Start) -> None:
    run = start("--models", "2", "--asleep", "1")
    run.behave("fail no weights", "stub-1")
    assert run.ask(name="stub-1").json()["detail"] == "Model stub-1 cannot be started: no weights"
    assert run.ask(name="stub-0").status_code == 200
    run.behave_normally("stub-1")
    run.wait(lambda: run.ask(name="stub-1").status_code == 200)


def test_web_is_started_again_when_it_is_killed_and_its_lost_jobs_are_told(start: Start) -> None:
    run = start(idle=30)
    predictor, web = run.predictor(), run.web()
    os.kill(web, signal.SIGKILL)
    run.wait(lambda: "web: answers again" in run.printed)
    assert "web: was ended by SIGKILL, and is started again; its jobs were in memory, and are lost\n" in run.printed
    assert run.web() != web
    assert run.predictor() == predictor
    assert httpx2.post(f"{run.url}/generate", json={"prompt": "0 moon"}, timeout=60).json()["text"] == "0 moon"
    assert run.end() == 0


def test_jobs_in_a_store_are_not_told_to_be_lost(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", "redis://127.0.0.1:1/0")
    run = start()
    os.kill(run.web(), signal.SIGKILL)
    run.wait(lambda: "web: was ended by SIGKILL, and is started again\n" in run.printed)


def test_web_that_cannot_start_again_is_tried_with_backoff_until_it_can(start: Start) -> None:
    run = start()
    with taken_from_web(run):
        run.wait(lambda: run.printed.count("is started again") >= 2)
        assert f"port {run.port} on 127.0.0.1 is in use" in run.printed
        assert run.state()["state"] in ("ready", "asleep")  # the models are as they were
    run.wait(lambda: "web: answers again" in run.printed)
    assert run.printed.count("is started again") < 10


@contextmanager
def taken_from_web(run: Any) -> Iterator[None]:
    """Its port. The supervisor is stopped meanwhile, so that it does not start web again before the port is taken."""

    def take() -> socket.socket | None:
        with suppress(OSError):  # another thread of web may still have it when its first has ended
            return socket.create_server(("127.0.0.1", run.port))
        return None

    run.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(run.web(), signal.SIGKILL)
        listener = wait_until(take, "the port is free")
    finally:
        run.process.send_signal(signal.SIGCONT)
    with listener:
        yield


def test_a_second_ctrl_c_does_not_wait_for_what_was_accepted(start: Start) -> None:
    run = start(idle=30)
    children = run.children()
    with ThreadPoolExecutor(1) as clients:
        asking = clients.submit(httpx2.post, f"{run.url}/generate", json={"prompt": "300 moon"}, timeout=400)
        run.wait(lambda: _established(run.state()["url"]))
        run.process.send_signal(signal.SIGINT)
        run.wait(lambda: "stopping: what was accepted is finished first; Ctrl-C again ends it at once" in run.printed)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(20) == 0  # both servers would take 30 s
        assert isinstance(asking.exception(), httpx2.HTTPError)
    for pid in children:
        wait_until_gone(pid)


def test_a_terminal_that_closes_ends_it_once_what_was_accepted_is_finished(start: Start) -> None:
    run = start(idle=30, launcher=["env", "--default-signal=HUP"])  # the tests may run with nohup
    children = run.children()
    with ThreadPoolExecutor(1) as clients:
        asking = clients.submit(httpx2.post, f"{run.url}/generate", json={"prompt": "5 moon"}, timeout=60)
        run.wait(lambda: _established(run.state()["url"]))
        run.process.send_signal(signal.SIGHUP)
        run.wait(lambda: "stopping" in run.printed)
        with suppress(ProcessLookupError):
            run.process.send_signal(signal.SIGHUP)  # the shell passes it on, too
        assert asking.result().json()["text"] == "5 moon"
    assert run.process.wait(60) == 0
    for pid in children:
        wait_until_gone(pid)


def test_nohup_keeps_it_running(start: Start) -> None:
    run = start(idle=30, launcher=["nohup"])
    run.process.send_signal(signal.SIGHUP)
    assert httpx2.post(f"{run.url}/generate", json={"prompt": "0 moon"}, timeout=60).json()["text"] == "0 moon"
    assert "stopping" not in run.printed


def test_the_state_is_found_from_shells_with_other_variables(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    run = start()
    command = [sys.executable, "-m", "scripts.local", "--status", "--port", str(run.port)]
    for variables in ({"TMPDIR": "/nowhere"}, {"XDG_RUNTIME_DIR": "/run"}):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables
        ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert ended.stdout.startswith("stub-0: "), ended.stderr


def test_the_state_is_written_again_when_it_has_been_cleaned_away(start: Start) -> None:
    run = start(idle=30)
    RunFolder(run.port).state_file.unlink()
    run.wait(lambda: run.state()["state"] == "ready")


def test_a_full_disk_does_not_stop_serving(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    limits = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))

    assert run.ask().status_code == 200
    assert run.state()["state"] == "asleep"  # from before: nothing could be written since

    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, limits)
    run.wait(lambda: run.state()["wake_seconds"][1:])


def test_silent_connections_do_not_block_the_503_of_a_broken_model(start: Start) -> None:
    run = start()
    run.wait_for("asleep")
    run.behave("fail no weights")
    run.ask()
    address = ("127.0.0.1", int(run.state()["url"].rpartition(":")[2]))
    silent = [socket.create_connection(address) for _ in range(20)]
    assert run.ask().json()["detail"] == "Model stub-0 cannot be started: no weights"
    for connection in silent:
        connection.close()


def test_the_state_file_is_always_complete(start: Start) -> None:
    run = start("--models", "2", idle=0.1)
    documents = set()
    with ThreadPoolExecutor(1) as clients:
        asking = clients.submit(lambda: [run.ask() for _ in range(5) if run.wait_for("asleep") is None])
        while not asking.done():
            documents.add(json.dumps(run.state()))  # an incomplete file could not be parsed
    assert json.dumps({"state": "unknown"}) not in documents
    assert len(documents) > 5


@pytest.mark.parametrize("cycles", [4, pytest.param(12, marks=pytest.mark.nightly)])
def test_nothing_is_lost_in_some_cycles_of_the_hammer(cycles: int) -> None:
    command = [sys.executable, "-m", "scripts.reliability.hammer", "--cycles", str(cycles), "--models", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _established(url: str) -> bool:
    """Whether a client is connected there."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(port) and row[3] == "01" for row in rows)


def _ignore(ask: Callable[[], object]) -> None:
    with suppress(httpx2.HTTPError):
        ask()
