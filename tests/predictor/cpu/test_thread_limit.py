"""As many threads as the container's CPU quota allows to run at once, however many cores there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from predictor.cpu.thread_limit import cpu_quota, limit_threads

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is put back afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")


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


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("50000", "1"), ("150000", "1"), ("200000", "2"), ("790000", "7"), ("800000", None), ("max", None)],
)
def test_threads_are_the_cores_that_the_quota_has_whole(tmp_path: Path, quota: str, threads: str | None) -> None:
    limit_threads(machine(tmp_path, "0::/", {"cpu.max": f"{quota} 100000"}))
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_what_the_operator_says_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads(machine(tmp_path, "0::/", {"cpu.max": "100000 100000"}))
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["plan"], ["--port", "0", "--host", "127.0.0.1"]])
def test_torch_is_told_before_it_is_imported(command: list[str]) -> None:
    program = """if True:
        import os, sys
        from predictor.cpu import thread_limit

        class Torch:
            def find_spec(self, name, *_):
                if name == "torch":
                    print(os.environ.get("OMP_NUM_THREADS"), flush=True)
                    os._exit(0)

        os.sched_getaffinity = lambda _: range(8)
        thread_limit.cpu_quota = lambda _: 3.5
        sys.meta_path.insert(0, Torch())
        from predictor.__main__ import main
        main()
    """
    told = subprocess.run(
        [sys.executable, "-c", program, *command, "--model", "models/poet"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert told.stdout == "3\n"
