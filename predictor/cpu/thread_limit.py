"""As many threads as the container may use cores at once.

torch starts a thread for each core that it sees, and it sees cores beyond the container's quota. Threads above the
quota use it up while they spin and wait for each other, until the kernel stops all of them for the rest of the period.
Measured with the poet and a quota of one core: two threads are stopped in nearly every period, and a token takes 1.5 to
3 times as long as with one thread, which is never stopped. With 1.5 cores one thread is quicker, too, so the quota is
rounded down.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def limit_threads(root: Path = Path("/")) -> None:
    """Set OMP_NUM_THREADS to the cores of the quota, unless it is set. Call it before torch is imported."""
    quota = cpu_quota(root)
    if quota is not None and quota < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(quota))))


def cpu_quota(root: Path) -> float | None:
    """Cores that this process may use at once: the least quota of its control groups, or None without one."""
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if "cpu" in controllers.split(","):
            mount /= "cpu"
        elif controllers:
            continue
        # In a container the path may be the one on the host, while the group itself is mounted as the root.
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            quota, period = _limit(mount / folder)
            if quota.isdecimal():  # neither "max" nor -1
                yield int(quota) / int(period)


def _limit(group: Path) -> tuple[str, str]:
    """CPU time in each period, and the period, both in microseconds; of control groups of version 2, or of 1."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
        except OSError:  # the other version, a root, or a path that is the host's
            continue
        return quota, period
    return "max", ""
