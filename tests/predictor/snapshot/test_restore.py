"""The poet, dumped by the real CRIU and restored as in a pod with the overlay's grants."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from predictor.snapshot import images
from tests.predictor.snapshot.conftest import Restore
from tests.support.snapshots.pod import USER, Pod
from tests.support.snapshots.poet import ASKED, BUILD_HOST, COMPLETIONS, MODEL, SECRET, Snapshot, text
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

TOKEN = "the-token-of-this-pod-alone"


def served(pod: Pod) -> psutil.Process:
    """The process that serves: process 1 after a usual start, its child after a restore."""
    return next(iter(pod.first.children()), pod.first)


def test_a_restored_predictor_writes_what_a_started_one_writes(restore: Restore, expected: str) -> None:
    for _ in range(2):  # each restore is of the same images
        with restore() as pod:
            assert text(pod) == expected
            assert "predictor: restored within" in pod.log
            assert "importing torch" not in pod.log
            process = served(pod)
            assert set(process.uids()) == {USER}
            assert process.pid != pod.first.pid
            status = Path(f"/proc/{process.pid}/status").read_text()
            for held in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert f"{held}:\t{0:016x}\n" in status
            assert "NoNewPrivs:\t1\n" in status
            assert pod.end() == 0
            assert "Finished server process" in pod.log


def test_two_restored_predictors_draw_different_texts(restore: Restore) -> None:
    texts = set()
    for _ in range(2):
        with restore() as pod:
            texts.add(text(pod, seed=None))
    assert len(texts) == 2


def test_what_comes_from_outside_is_the_pods(restore: Restore) -> None:
    environment = {"PREDICTOR_TOKEN": TOKEN, "INFERENCE_SERVICE_NAME": "spring", "PREDICTOR_MAX_REPLIES": "3"}
    with restore(environment=environment, host="another-pod") as pod:
        assert pod.ask(COMPLETIONS, ASKED)[0] == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        status, answer = pod.ask(COMPLETIONS, {**ASKED, "model": "spring"}, headers)
        assert status == 200, answer
        assert json.loads(answer)["model"] == "spring"
        assert "predictor: restored within" in pod.log
        status, metrics = pod.ask("/metrics", headers=headers)
        phases = [line for line in metrics.splitlines() if line.startswith("shangcai_cold_start_phase_seconds{")]
        assert not any("torch" in line for line in phases)
        assert any('phase="ready"' in line for line in phases)


def test_nothing_of_the_build_is_in_the_images(snapshot: Snapshot) -> None:
    assert images.find(snapshot.images, ["shangcai-restore"]) == ["shangcai-restore"]  # what is there is found
    assert images.find(snapshot.images, [SECRET, BUILD_HOST, BUILD_HOST.encode().hex()]) == []


@pytest.mark.parametrize("granted", [[], ["setpcap"]])
def test_a_refused_capability(restore: Restore, expected: str, granted: list[str]) -> None:
    with restore(capabilities=granted) as pod:
        assert text(pod) == expected
        assert "not restored, but started as usual: " in pod.log


def test_a_pod_that_may_gain_no_privileges(restore: Restore, expected: str) -> None:
    with restore(privileged=False) as pod:
        assert text(pod) == expected
        assert "not restored, but started as usual: " in pod.log


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((*MODEL, "--slots", "2"), "another engine is wanted than was dumped: max_concurrency, slots"),
        ((*MODEL, "--no-pack-weights"), "another engine is wanted than was dumped: pack_weights"),
        (
            ("--model", "models/painter"),
            "another engine is wanted than was dumped: model, max_concurrency, memory, slots",
        ),
    ],
)
def test_settings_of_another_engine(restore: Restore, arguments: tuple[str, ...], reason: str) -> None:
    with restore(*arguments) as pod:
        assert pod.ask("/v2/health/ready")[0] == 200
        assert f"not restored, but started as usual: {reason}\n" in pod.log


def test_another_number_of_threads(restore: Restore) -> None:
    with restore(environment={"OMP_NUM_THREADS": "2"}) as pod:
        assert pod.ask("/v2/health/ready")[0] == 200
        assert "started as usual: it was dumped with 1 threads, and here there would be 2\n" in pod.log


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9])
def test_a_damaged_image(restore: Restore, spared: Path, expected: str, share: float) -> None:
    pages = spared / "pages-1.img"
    start = int(pages.stat().st_size * share)
    pages.chmod(0o600)
    with pages.open("r+b") as file:
        file.seek(start)
        content = file.read(65_536)
        file.seek(start)
        file.write(bytes(byte ^ 0xFF for byte in content))
    with restore() as pod:
        assert text(pod) == expected
        assert "not restored, but started as usual: the image pages-1.img is damaged\n" in pod.log


def test_a_predictor_that_is_killed_ends_its_container(restore: Restore) -> None:
    with restore() as pod:
        text(pod)
        served(pod).send_signal(signal.SIGKILL)
        assert pod.outer.wait(60) == 128 + signal.SIGKILL


def test_a_container_that_is_ended_while_it_restores(restore: Restore) -> None:
    with restore() as pod:
        wait_until(lambda: any("criu" in process.name() for process in pod.first.children()), "criu runs")
        assert pod.end() == 0
