"""tests/cluster as a pytest of its own, against a scripted cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.processes import ROOT
from tests.support.scripted_cluster.cluster import ScriptedCluster

LIMIT = 900.0
"""Seconds after which the tests hang."""

Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def run_cluster_tests() -> Callable[..., Ended]:
    """`run_cluster_tests(cluster, *arguments, seconds=10)`: SHANGCAI_SLEEP_SECONDS are `seconds`."""

    def run(cluster: ScriptedCluster, *arguments: str, seconds: float = 10) -> Ended:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHANGCAI_", "PYTEST_"))}
        settings = {"KUBECONFIG": str(cluster.kubeconfig), "SHANGCAI_SLEEP_SECONDS": str(seconds)}
        command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(
            command,
            env={**kept, **settings, "HOME": str(cluster.folder)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    return run
