"""A forked process has what a subprocess has."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from scripts.local.processes.child_process import reap_orphans
from scripts.local.processes.forked_process import ForkedProcess
from tests.support.processes import is_running
from tests.support.waiting import wait_until


def spawned(*command: str) -> ForkedProcess:
    return ForkedProcess(os.posix_spawnp(command[0], command, os.environ))


@pytest.fixture
def sleeping() -> Iterator[ForkedProcess]:
    process = spawned("sleep", "600")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(("command", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -signal.SIGKILL)])
def test_its_status_is_as_subprocess_gives_it(command: str, status: int) -> None:
    process = spawned("sh", "-c", command)
    assert process.wait() == status
    assert (process.returncode, process.poll()) == (status, status)
    process.terminate()  # nobody
    process.kill()


def test_one_that_runs_has_no_status_until_it_is_ended(sleeping: ForkedProcess) -> None:
    assert sleeping.poll() is None
    assert sleeping.returncode is None
    sleeping.terminate()
    assert sleeping.wait() == -signal.SIGTERM


def test_one_that_somebody_else_has_waited_for_counts_as_killed(sleeping: ForkedProcess) -> None:
    other = spawned("true")
    os.waitpid(other.pid, 0)
    assert other.poll() == -signal.SIGKILL


def test_only_strangers_are_reaped(sleeping: ForkedProcess) -> None:
    ended = spawned("true")
    wait_until(lambda: not is_running(ended.pid))
    reap_orphans({sleeping.pid, ended.pid})
    assert ended.poll() == 0, "its status was left for whoever waits for it"
    stranger = spawned("true")
    wait_until(lambda: not is_running(stranger.pid))
    reap_orphans({sleeping.pid})
    with pytest.raises(ChildProcessError):
        os.waitpid(stranger.pid, os.WNOHANG)
