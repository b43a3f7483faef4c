"""What the supervisor and web hold: memory, file descriptors and child processes."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

LEAKED_BYTES = 4_000_000
"""Growth of memory that counts as a leak: more than the allocator's ups and downs."""


@dataclass(frozen=True)
class ResourceUsage:
    """Of one process."""

    bytes: int
    files: int
    children: int

    def within(self, before: ResourceUsage, more_files: int) -> bool:
        """Whether nothing has leaked since `before`, if so many more open files are no leak."""
        return (
            self.bytes - before.bytes < LEAKED_BYTES
            and self.files <= before.files + more_files
            and self.children == before.children
        )


def measure(supervisor_pid: int) -> dict[str, ResourceUsage]:
    """Of the supervisor and of web, its child."""
    supervisor = psutil.Process(supervisor_pid)
    web = next(child for child in supervisor.children() if "web" in child.cmdline())
    return {
        name: ResourceUsage(process.memory_info().rss, process.num_fds(), len(process.children()))
        for name, process in {"supervisor": supervisor, "web": web}.items()
    }
