"""`scripts/bench wake` against a scripted cluster, with the real kubectl and web, and against stubs under the real
supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.benchmarks.wake import wake
from scripts.local.run_folder import RunFolder
from tests.cluster.deployment import render
from tests.support.processes import ROOT, free_port
from tests.support.scripted_cluster.cluster import ScriptedCluster, running
from tests.support.scripted_cluster.objects import Place
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.slow

NAMESPACE = "elsewhere"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedCluster]:
    """deploy/laptop in it, with the short retention."""
    with running(tmp_path, drain_seconds=0.5) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        for document in render(ROOT / "deploy" / "laptop", NAMESPACE):
            cluster.objects.put(document)
        yield cluster
    assert cluster.errors == []


@pytest.fixture
def address(cluster: ScriptedCluster) -> list[str]:
    """The flags that name web behind the ingress, once it answers."""
    ingress = cluster.objects.get(Place("v1", "services", "kourier-system", "kourier"))
    assert ingress is not None
    url, host = f"http://127.0.0.1:{ingress['spec']['ports'][0]['nodePort']}", f"web.{NAMESPACE}.example.com"

    def answers() -> bool:
        try:
            return httpx2.get(f"{url}/healthz", headers={"Host": host}, timeout=SECONDS).status_code == 200
        except httpx2.HTTPError:
            return False

    wait_until(answers, "web answers", seconds=120)
    return ["--url", url, "--host", host, "--namespace", NAMESPACE]


def rows(printed: str) -> dict[str, list[float]]:
    """Median, p99 and number of each phase."""
    lines = [line.rsplit(maxsplit=3) for line in printed.splitlines()[2:-1]]
    return {name: [float(number) for number in numbers] for name, *numbers in lines}


def test_a_deployed_service_is_measured_by_phase_while_pods_are_killed_and_clients_leave(
    address: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    wake.main([*address, "--model", "text", "--rounds", "2", "--kills", "0.5", "--leavers", "1"])

    printed = capsys.readouterr().out
    found = rows(printed)
    for name, seconds in (("imports", 1.0), ("weights", 0.5), ("process ready", 2.0)):
        assert found[name][:2] == [seconds, seconds]
        assert found[name][2] in (1, 2)  # the pod that is killed may have told its own before
    assert found.keys() >= {
        "pod made",
        "scheduled",
        "image pulled",
        "container started",
        "pod ready",
        "counted as active",
    }
    assert found["request to first token"][0] > 1
    assert found["request to first token, with a kill"][2] == 1
    assert printed.splitlines()[-1] == "wake-ups 2, killed 1, left 2, lost 0, doubled 0"


def test_a_cluster_that_cannot_be_asked_is_no_sleeping_model(
    address: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "none").write_text("{}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match="scripts/bench wake: kubectl: "):
        wake.main([*address, "--model", "text", "--rounds", "1"])


@pytest.fixture
def stub_run(tmp_path: Path) -> Iterator[int]:
    """The port of stubs under the real supervisor and web; they sleep after a moment."""
    port = free_port()
    stubs = ROOT / "tests" / "scripts" / "local" / "stub_run.py"
    command = [sys.executable, str(stubs), "--port", str(port), "--idle", "0.3", "--behaviours", str(tmp_path)]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT
        )
    try:
        wait_until(lambda: "all are up" in (tmp_path / "output").read_text(), "all are up")
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_a_run_on_this_machine_is_measured_without_kubernetes(
    stub_run: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no kubectl
    flags = ["--url", f"http://127.0.0.1:{stub_run}", "--prompt", "0.01 moon"]
    wake.main([*flags, "--rounds", "3", "--kills", "0.34", "--leavers", "1"])

    printed = capsys.readouterr().out
    found: dict[str, Any] = rows(printed)
    assert found["process started"][0] < 5
    assert "request to first token" in found
    assert printed.splitlines()[-1].startswith("wake-ups 3, ")
    assert printed.splitlines()[-1].endswith("left 3, lost 0, doubled 0")
    assert RunFolder(stub_run).read() is not None
