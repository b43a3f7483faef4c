"""All of tests/cluster against a scripted cluster: it passes where the cluster does what Knative does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted_cluster.cluster import running

pytestmark = [pytest.mark.slow, pytest.mark.serial]


@pytest.mark.nightly
def test_they_pass_and_leave_nothing_behind(run_cluster_tests: Callable[..., Any], tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        ended = run_cluster_tests(cluster, "tests/cluster")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "skipped" not in ended.stdout
        assert "s from zero; asleep after" in ended.stdout  # the table
        assert cluster.api.unknown == []
        assert cluster.errors == []
        assert cluster.objects.list("v1", "namespaces") == []


def test_without_eventing_what_needs_it_is_skipped(run_cluster_tests: Callable[..., Any], tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        cluster.remove_eventing()
        ended = run_cluster_tests(cluster, "tests/cluster/test_events.py")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "4 skipped" in ended.stdout
        assert "mt-broker-controller is not there" in ended.stdout
