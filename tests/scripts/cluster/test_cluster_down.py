"""scripts/cluster-down."""

from __future__ import annotations

from typing import Any

from tests.scripts.cluster.kubectl_answers import changes


def test_cluster_down_removes_what_cluster_up_made(finished: Any) -> None:
    ended = finished.run("cluster-down")
    assert (ended.returncode, ended.stdout) == (0, "removed the cluster shangcai\n")
    assert changes(finished.calls) == ["kind delete cluster --name shangcai"]


def test_cluster_down_without_a_cluster_has_nothing_to_do(bare: Any) -> None:
    ended = bare.run("cluster-down")
    assert (ended.returncode, ended.stdout) == (0, "there is no cluster shangcai\n")
    assert changes(bare.calls) == []
