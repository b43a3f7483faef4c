"""What the supervisor passes to the predictor, and what the predictor reports to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from predictor import systemd
from predictor.loading.startup import Startup
from wire.listener import listen

ANSWER_ONE = (
    "import os; from predictor.systemd import inherited_listener; listener = inherited_listener();"
    "connection, _ = listener.accept(); connection.sendall(b'here');"
    "print(listener.get_inheritable(), os.environ.get('LISTEN_PID'), os.environ.get('LISTEN_FDS'))"
)


def test_the_supervisors_socket_is_listened_on() -> None:
    with listen("127.0.0.1", 0) as listener:

        def hand_over() -> None:
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")

        child = subprocess.Popen(
            [sys.executable, "-c", ANSWER_ONE], preexec_fn=hand_over, close_fds=False, stdout=subprocess.PIPE, text=True
        )
        with socket.create_connection(listener.getsockname(), timeout=60) as client:
            assert client.recv(10) == b"here"
        output, _ = child.communicate(timeout=60)
    assert output == "False None None\n"  # its own children get neither


def test_a_socket_for_another_process_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert systemd.inherited_listener() is None
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert systemd.inherited_listener() is None


def test_more_than_one_socket_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    with pytest.raises(OSError, match="LISTEN_FDS is 2"):
        systemd.inherited_listener()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_phases_of_the_start_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:
    if abstract and sys.platform != "linux":
        pytest.skip("there are none")
    address = f"@shangcai-test-{os.getpid()}" if abstract else str(tmp_path / "notices")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if abstract else address)
        receiver.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        startup = Startup()
        startup.enter("importing torch")
        systemd.notify_slots(4)
        startup.succeed()
        systemd.notify_stopping()
        Startup().fail("no\nweights")

        notices = [receiver.recv(1000).decode() for _ in range(5)]
    assert notices == ["STATUS=importing torch", "X_SLOTS=4", "READY=1", "STOPPING=1", "STATUS=no weights\nERRNO=1"]


def test_a_supervisor_that_has_gone_does_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nothing"))
    systemd.notify_ready()
