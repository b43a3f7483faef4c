"""How many cores the container may use at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


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
