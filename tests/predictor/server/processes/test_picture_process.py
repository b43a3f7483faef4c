"""`python -m predictor` with a pipeline: it finds out that it paints, finishes what it accepted, and plans."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from predictor.plan_command import print_plan
from tests.support.processes import free_port

pytestmark = pytest.mark.slow

DEADLINE = 120.0
"""Longest that a test waits for anything: a hang, not a measure of speed."""

ROOT = Path(__file__).parents[4]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
ROUTE = "/openai/v1/images/generations"
BODY = {"model": "painter", "prompt": "a cat", "seed": 1}


class Process:
    """`python -m predictor` on a free port, whose every forward takes a little while."""

    def __init__(self, folder: Path, output: Path) -> None:
        port = free_port()
        code = (
            "import runpy, sys, time; import predictor.pictures.batch as b; compute = b.PictureBatch.compute; "
            "b.PictureBatch.compute = lambda self, *a, **k: (time.sleep(0.02), compute(self, *a, **k))[1]; "
            "sys.argv[0] = 'predictor'; runpy.run_module('predictor', run_name='__main__', alter_sys=False)"
        )
        command = [sys.executable, "-c", code, "--model", str(folder), "--name", "painter"]
        self.output = output
        self.url = f"http://127.0.0.1:{port}"
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env=ENVIRONMENT,
            )

    def log(self) -> str:
        return self.output.read_text()

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not holds():
            assert self.process.poll() is None, f"ended while waiting for {what}:\n{self.log()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.log()}"
            time.sleep(0.05)

    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/v2/health/ready", timeout=DEADLINE).status_code == 200
        except httpx2.TransportError:
            return False


@pytest.fixture
def process(tiny_sd: Path, tmp_path: Path) -> Iterator[Process]:
    started = Process(tiny_sd, tmp_path / "output")
    yield started
    started.process.kill()
    started.process.wait(DEADLINE)


def test_it_paints_and_finishes_the_picture_that_a_signal_finds(process: Process) -> None:
    process.wait_for(process.ready, "readiness")
    answer = httpx2.post(process.url + ROUTE, json=BODY, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    events: list[dict[str, Any]] = []

    def watch() -> None:
        body = BODY | {"steps": 100, "stream": True, "progress": True}
        with httpx2.stream("POST", process.url + ROUTE, json=body, timeout=DEADLINE) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    process.wait_for(lambda: len(events) > 5, "progress")
    assert len(events) < 80, "it is in the middle"
    process.process.send_signal(signal.SIGTERM)

    watching.join(DEADLINE)
    assert [event["step"] for event in events if event["type"].endswith("progress")] == list(range(1, 101))
    assert events[-1]["type"] == "image_generation.completed"
    assert Image.open(io.BytesIO(base64.b64decode(events[-1]["b64_json"]))).size == (32, 32)
    assert process.process.wait(DEADLINE) == 0
    log = process.log()
    assert "slots of 2048 pixels" in log
    for unwanted in ("Traceback", "Warning", "%|", "torchvision"):
        assert unwanted not in log, log


def test_a_plan_is_printed(tiny_sd: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "predictor",
            "plan",
            "--model",
            str(tiny_sd),
            "--max-concurrency",
            "2",
            "--memory",
            "4Gi",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=DEADLINE,
    )

    assert done.returncode == 0, done.stderr
    most, planned, slots, *scaling = done.stdout.splitlines()
    assert most == "# of pictures with at most 2048 pixels: PREDICTOR_MAX_PIXELS"
    assert "slots of 2048 pixels" in planned
    assert slots in ("containerConcurrency: 1", "containerConcurrency: 2")
    assert scaling[:2] == ["scaleMetric: concurrency", slots.replace("containerConcurrency", "scaleTarget")]
    assert "nvidia" not in done.stdout
    assert done.stderr == ""


def test_what_does_not_fit_is_told_in_one_line(tiny_sd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_plan(["--model", str(tiny_sd), "--memory", "100Mi"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("predictor: 100.0 MiB of memory do not hold the model and one slot of 1024 pixels")


def test_a_folder_that_holds_no_pipeline_is_told_in_one_line(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_plan(["--model", str(tiny_model), "--kind", "image"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert "holds no image model: there is no model_index.json in it" in line
