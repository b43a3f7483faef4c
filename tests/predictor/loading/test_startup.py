"""The phases of the start: in answers, in the metrics and in the log."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from predictor.loading.phases import CONVERTING
from predictor.loading.startup import Startup, process_age


def test_a_request_while_loading_gets_the_phase_and_the_seconds() -> None:
    startup = Startup()
    startup.enter("importing torch")

    problem = startup.problem("poet")

    assert problem.kind.status == 503
    assert problem.headers == {"Retry-After": "1"}
    document: dict[str, Any] = problem.document
    assert document["phase"] == "importing torch"
    assert document["seconds"] >= 0
    assert document["detail"].startswith("Model poet is not ready: importing torch, ")


def test_what_earlier_starts_took_is_told_and_this_one_is_added() -> None:
    added: list[float] = []
    startup = Startup(age=5.0)
    assert "expected_seconds" not in startup.problem("poet").document
    startup.expected_seconds = 6.5
    startup.on_ready.append(added.append)
    assert startup.problem("poet").document["expected_seconds"] == 6.5
    startup.succeed()
    assert added == [pytest.approx(5.0, abs=1)]


def test_startup_ends_ready_or_failed() -> None:
    startup = Startup()
    assert (startup.ready, startup.error, startup.phase) == (False, None, "starting")

    startup.fail("no weights")
    assert (startup.ready, startup.error, startup.phase) == (False, "no weights", "failed")

    startup = Startup()
    startup.succeed()
    assert (startup.ready, startup.error, startup.phase) == (True, None, "ready")


def phase_seconds(phase: str) -> float | None:
    return REGISTRY.get_sample_value("shangcai_cold_start_phase_seconds", {"phase": phase})


def test_every_phase_is_a_metric_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "predictor.loading.startup")
    startup = Startup(age=100.0)
    startup.record("port open", 100.25)
    startup.enter("tasting")
    startup.succeed()

    assert phase_seconds("port open") == 100.25
    assert 0 <= (phase_seconds("tasting") or -1.0) < 100
    assert (phase_seconds("ready") or 0.0) >= 100, "counted from the start of the process"
    for line in (r"port open took 100\.25 s", r"tasting took \d+\.\d\d s", r"ready after 1\d\d\.\d\d s"):
        assert re.search(line, caplog.text)


def test_how_far_a_phase_is_makes_no_further_metric_and_no_later_start_is_expected_to_convert() -> None:
    added: list[float] = []
    startup = Startup(age=10.0)
    startup.expected_seconds = 3.0
    startup.on_ready.append(added.append)
    startup.enter(CONVERTING)
    assert "expected_seconds" not in startup.problem("poet").document
    startup._phase_begun -= 100.0
    startup._begun -= 100.0
    for percent in (5, 10):
        startup.enter(f"{CONVERTING}, {percent} %")
        assert startup.problem("poet").document["phase"] == f"{CONVERTING}, {percent} %"
    startup.succeed()
    assert (phase_seconds(CONVERTING) or 0.0) >= 100
    assert phase_seconds(f"{CONVERTING}, 5 %") is None
    assert (phase_seconds("ready") or 0.0) >= 110
    assert added == [pytest.approx(10.0, abs=1)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_process_knows_its_age() -> None:
    code = "import time; from predictor.loading.startup import process_age as age; print(time.clock_gettime(7) - age())"
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    begun = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    after = time.clock_gettime(time.CLOCK_BOOTTIME)

    assert before - 0.05 <= begun <= after
    assert process_age() > after - begun, "this one is older than its child"


@pytest.mark.parametrize("end", [Startup.succeed, lambda startup: startup.fail("no weights")])
def test_garbage_is_collected_again_once_the_start_is_over(end: Callable[[Startup], None]) -> None:
    gc.disable()
    try:
        end(Startup())

        assert gc.isenabled()
        assert gc.get_freeze_count() > 0, "what imports have made is not looked at again"
    finally:
        gc.enable()
        gc.unfreeze()
