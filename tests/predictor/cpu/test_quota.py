"""How many cores a container may use at once, in the files of its control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictor.cpu.quota import cpu_quota


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root folder with these groups of the process, and these files below where cgroups are mounted."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": files[name] for name in files}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


V1 = "9:name=systemd:/\n4:memory:/pod/x\n3:cpuset:/\n1:cpu,cpuacct:/pod/x"
V1_FILES = {"cpu/pod/x/cpu.cfs_quota_us": "150000", "cpu/pod/x/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        pytest.param("0::/", {"cpu.max": "250000 100000"}, 2.5, id="version 2 in a container"),
        pytest.param("0::/", {"cpu.max": "max 100000"}, None, id="version 2 without a quota"),
        pytest.param("0::/", {}, None, id="version 2 outside of containers: its root has no such file"),
        pytest.param("0::/pod/x", {"pod/x/cpu.max": "50000 100000"}, 0.5, id="version 2 on a host"),
        pytest.param(
            "0::/pod/x", {"pod/x/cpu.max": "max 100000", "pod/cpu.max": "20000 10000"}, 2, id="the parent's quota"
        ),
        pytest.param(
            "0::/pod/x", {"pod/x/cpu.max": "300000 100000", "pod/cpu.max": "400000 100000"}, 3, id="the least of both"
        ),
        pytest.param("0::/../../pod/x", {"cpu.max": "200000 100000"}, 2, id="a path outside of the namespace"),
        pytest.param(V1, V1_FILES, 1.5, id="version 1"),
        pytest.param(V1, V1_FILES | {"cpu/pod/x/cpu.cfs_quota_us": "-1"}, None, id="version 1 without a quota"),
        pytest.param(
            V1, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4, id="version 1 in a container"
        ),
        pytest.param(f"{V1}\n0::/", V1_FILES, 1.5, id="both versions, where the first has the CPUs"),
        pytest.param("4:memory:/", {"cpu/cpu.cfs_quota_us": "400000"}, None, id="no such group"),
    ],
)
def test_the_quota(tmp_path: Path, groups: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(machine(tmp_path, groups, files)) == quota


def test_there_is_none_where_there_are_no_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
