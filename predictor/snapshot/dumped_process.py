"""A process that is to be dumped: started so that its images hold nothing of this machine, and any other may restore
it."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from predictor.snapshot.meeting_point import READY
from predictor.system_calls import give_up_privileges

LEAST_PID = 1000
"""Lower numbers are taken in a container that starts: by the launcher, by criu, and by who looks after it."""

HOST_NAME = "snapshot"

_NEW_UTS = 0x04000000  # CLONE_NEWUTS of unshare(2)

ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "HF_HOME", "HF_HUB_CACHE", "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS", "SNAPSHOT_THREADS",
    "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPYCACHEPREFIX",
)  # fmt: skip
"""Variables that each such process has of this one's, where they are set. All are in its images."""

LIMITS = {
    resource.RLIMIT_NOFILE: 65_536,
    resource.RLIMIT_SIGPENDING: 4_096,
    resource.RLIMIT_MEMLOCK: 65_536,
    resource.RLIMIT_MSGQUEUE: 819_200,
    resource.RLIMIT_CORE: 0,
}
"""Most of each: a restore may lower a container's limits, and not raise them."""


def forget_host_name() -> None:
    """Give this process and its children a host name that says nothing: Python remembers it. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = HOST_NAME.encode()
    if libc.unshare(_NEW_UTS) or libc.sethostname(name, len(name)):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot have a host name of its own: {os.strerror(number)}")


def reach_pid(least: int = LEAST_PID) -> None:
    """Have the next process get a number of at least this."""
    while True:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        if pid >= least:
            return


def start(arguments: Sequence[str], user: int, variables: Iterable[str] = ()) -> subprocess.Popen[bytes]:
    """`python -m predictor` as a user and group, without any privilege. It computes with threads that wait asleep, as
    they have to where a quota may bound them: libgomp reads how they wait, and how many cores there are, when it is
    loaded, so that a restored process can choose neither. Of this environment it has what ENVIRONMENT and `variables`
    name."""
    environment = {name: os.environ[name] for name in (*ENVIRONMENT, *variables) if name in os.environ}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    same_user = user == os.geteuid()
    return subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-m", "predictor", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_confine,  # this program has one thread
        user=None if same_user else user,
        group=None if same_user else user,
        extra_groups=None if same_user else [],
    )


def _confine() -> None:
    give_up_privileges()
    os.umask(0o077)
    for limit, most in LIMITS.items():
        _, hard = resource.getrlimit(limit)
        value = most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(limit, (value, value))


def wait_until_ready(process: subprocess.Popen[bytes], meeting_point: Path, seconds: float) -> None:
    """Wait until the process is at the gate. Raises RuntimeError when it ends or the time is over."""
    deadline = time.monotonic() + seconds
    while not (meeting_point / READY).exists():
        if process.poll() is not None:
            raise RuntimeError(f"the predictor has ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the predictor was not ready to be dumped after {seconds:.0f} s")
        time.sleep(0.05)


def mapped_files(pid: int) -> list[str]:
    """All files that a process has mapped."""
    found = set()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[5].startswith("/") and not parts[5].startswith("/dev/"):
            found.add(parts[5])
    return sorted(path for path in found if not path.endswith(" (deleted)"))
