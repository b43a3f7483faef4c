"""The launcher with a scripted criu: what it passes on, and that it starts as usual after anything odd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from predictor.snapshot import key
from tests.support.processes import is_running, wait_until_gone
from tests.support.snapshots.scripted_criu import ScriptedCriu
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CRIU is for Linux")

WRONG = ("--port", "many")
"""Arguments with which the usual start ends at once, and says why."""


@pytest.fixture
def criu(tmp_path: Path) -> Iterator[ScriptedCriu]:
    scripted = ScriptedCriu(tmp_path)
    scripted.write("restore()")
    yield scripted
    scripted.end()


def started_as_usual(launched: subprocess.Popen[str], criu: ScriptedCriu) -> str:
    """Why, once it has; nothing of a restore is left then."""
    _, errors = launched.communicate(timeout=SECONDS)
    assert "python -m predictor: --port" in errors
    assert launched.returncode == 2
    for pid in criu.started:
        assert not is_running(pid)
    assert not (criu.folder / "meeting").exists()
    before = "predictor: not restored, but started as usual: "
    [reason] = [line for line in errors.splitlines() if line.startswith(before)]
    return reason.removeprefix(before)


def test_a_restored_process_has_the_arguments_the_environment_and_the_files_of_the_launcher(criu: ScriptedCriu) -> None:
    launched = criu.launch("--name", "poet")
    assert launched.stdout
    assert launched.stdout.readline() == "serving with ['--name', 'poet'] and green\n"
    wait_until(lambda: not (criu.folder / "meeting").exists(), "the launcher has met it")

    launched.send_signal(signal.SIGTERM)  # as at the end of a pod: the process drains, and its status is the launcher's

    _, errors = launched.communicate(timeout=SECONDS)
    assert launched.returncode == 7
    assert errors.startswith("predictor: restored within ")
    wait_until_gone(criu.started[-1])


def test_a_restored_process_has_the_listening_socket_of_the_launcher(criu: ScriptedCriu) -> None:
    criu.answer("gate.answer(); print(gate.listener.getsockname()[1] if gate.listener else None, flush=True)")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        launched = criu.launch(listener=listener)
        assert launched.stdout
        assert launched.stdout.readline() == f"{port}\n"

        alone = criu.launch()
        assert alone.stdout
        assert alone.stdout.readline() == "None\n"


def test_a_restored_process_that_is_killed_has_the_launcher_end(criu: ScriptedCriu) -> None:
    launched = criu.launch()
    assert launched.stdout
    launched.stdout.readline()
    os.kill(criu.started[-1], signal.SIGKILL)
    launched.communicate(timeout=SECONDS)
    assert launched.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize("signal_number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_soon_after_a_restore_is_held_against_the_snapshot(criu: ScriptedCriu, signal_number: int) -> None:
    launched = criu.launch(*WRONG)
    assert launched.stdout
    launched.stdout.readline()
    os.kill(criu.started[-1], signal_number)
    reason = started_as_usual(launched, criu)
    assert reason.startswith(f"what was restored ended with {signal.Signals(signal_number).name} after ")


def test_a_crash_of_a_process_that_was_asked_to_end_is_its_end(criu: ScriptedCriu) -> None:
    criu.answer("gate.answer(); signal.signal(signal.SIGTERM, lambda *_: os.abort())")
    launched = criu.launch()
    assert launched.stdout
    launched.stdout.readline()
    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=SECONDS)
    assert launched.returncode == 128 + signal.SIGABRT


def test_an_environment_larger_than_a_pipe_arrives(criu: ScriptedCriu, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        monkeypatch.setenv(f"LARGE_{number}", "x" * 10_000)
    criu.answer("gate.answer(); print(sum(len(value) for name, value in os.environ.items() if 'LARGE' in name))")
    launched = criu.launch()
    assert launched.stdout
    assert launched.stdout.readline() == "300000\n"
    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=SECONDS)


def test_orphans_are_reaped(criu: ScriptedCriu) -> None:
    criu.write("restore()\norphan = subprocess.Popen(['sleep', '0'], start_new_session=True)\nnote(orphan.pid)")
    launched = criu.launch()
    assert launched.stdout
    launched.stdout.readline()
    for pid in set(criu.started) - {criu.started[1]}:
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "no zombie is left")  # type: ignore[misc]
    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=SECONDS)
    assert launched.returncode == 7


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("sys.exit(1)", "criu ended with 1: its log says nothing"),
        ("log('Error (criu/x.c:1): no'); sys.exit(3)", "criu ended with 3: Error (criu/x.c:1): no"),
        (
            "log('Error (criu/util.c:1): rlimit: no\\nError (criu/x.c:2): no pid\\nError (y.c:3): Restoring FAILED.');"
            " sys.exit(1)",
            "criu ended with 1: Error (criu/x.c:2): no pid",
        ),
        ("os.kill(os.getpid(), 9)", "criu ended with -9: its log says nothing"),
        ("restore(); os.kill(os.getpid(), 9)", "criu ended with -9: its log says nothing"),
    ],
)
def test_a_criu_that_fails(criu: ScriptedCriu, does: str, reason: str) -> None:
    criu.write(does)
    assert started_as_usual(criu.launch(*WRONG), criu) == reason
    assert not criu.told.exists()


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("time.sleep(3600)", "criu was not done in time; does the container lack a capability?"),
        ("restore(); time.sleep(3600)", "criu was not done in time; does the container lack a capability?"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); restore(); signal.pause()", "criu was not done in time"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "criu was not done in time"),
    ],
)
def test_a_criu_that_hangs_is_killed_with_all_that_it_has_started(criu: ScriptedCriu, does: str, reason: str) -> None:
    criu.write(does)
    assert started_as_usual(criu.launch(*WRONG, seconds=0.5), criu).startswith(reason)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("gate.answer('another engine\\nis wanted')", "another engine is wanted"),
        ("os._exit(0)", "the restored process has ended"),
        ("os.abort()", "the restored process has ended"),
    ],
)
def test_a_restored_process_that_does_not_serve(criu: ScriptedCriu, answer: str, reason: str) -> None:
    criu.answer(answer)
    assert started_as_usual(criu.launch(*WRONG), criu) == reason


@pytest.mark.parametrize("restores", [True, False])
def test_a_restored_process_that_hangs_or_is_not_there(criu: ScriptedCriu, restores: bool) -> None:
    if restores:
        criu.answer("signal.pause()")
    else:
        criu.write("")
    # As long as it takes criu and the process to start on a busy machine.
    assert started_as_usual(criu.launch(*WRONG, seconds=5), criu) == "the restored process does not answer"


def test_a_restored_process_ends_with_its_launcher(criu: ScriptedCriu) -> None:
    launched = criu.launch("--port", "1")
    assert launched.stdout
    assert launched.stdout.readline().startswith("serving with")
    launched.kill()
    for pid in criu.started:
        wait_until_gone(pid)


def test_a_damaged_image_is_found_before_the_restored_process_goes_on(criu: ScriptedCriu) -> None:
    image = criu.images / "pages-1.img"
    content = bytearray(image.read_bytes())
    content[3000] ^= 1
    image.write_bytes(content)
    assert started_as_usual(criu.launch(*WRONG), criu) == "the image pages-1.img is damaged"
    assert not criu.told.exists()


def test_an_image_that_is_not_there(criu: ScriptedCriu) -> None:
    (criu.images / "pages-1.img").unlink()
    reason = started_as_usual(criu.launch(*WRONG), criu)
    assert reason == "the image pages-1.img cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"flags": ["fpu", "telepathy"]}, "this CPU lacks "),
        ({"user": 65531}, "it is for the user 65531, and this is "),
        ({"machine": "s390x"}, "it is for s390x, and this is "),
        ({"kernel": [99, 0]}, "it needs Linux 99.0, and this is "),
        ({"files": {sys.executable: [1, 1]}}, f"{sys.executable} is another one"),
        ({"files": {"/nowhere": [1, 1]}}, "/nowhere is another one"),
    ],
)
def test_a_snapshot_for_another_machine_user_or_image_is_not_touched(
    criu: ScriptedCriu, changed: dict[str, object], reason: str
) -> None:
    criu.seal(**changed)
    assert started_as_usual(criu.launch(*WRONG), criu).startswith(reason)
    assert criu.started == []


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text.replace("1", "2"), lambda _: "", lambda _: "{}"]
)
def test_a_damaged_key(criu: ScriptedCriu, damage: Callable[[str], str]) -> None:
    path = criu.images / key.FILE
    path.write_text(damage(path.read_text()))
    assert started_as_usual(criu.launch(*WRONG), criu) == "its key is damaged"
    assert criu.started == []


def test_no_snapshot_at_all(criu: ScriptedCriu) -> None:
    (criu.images / key.FILE).unlink()
    reason = started_as_usual(criu.launch(*WRONG), criu)
    assert reason == f"there is no key in {criu.images}: No such file or directory"


def test_no_criu_at_all(criu: ScriptedCriu) -> None:
    (criu.folder / "criu").unlink()
    reason = started_as_usual(criu.launch(*WRONG), criu)
    assert reason == f"{criu.folder}/criu cannot be executed: No such file or directory"


def test_a_key_without_what_is_compared(criu: ScriptedCriu) -> None:
    key.write(str(criu.images), {"user": os.geteuid()})
    assert started_as_usual(criu.launch(*WRONG), criu) == "its key is damaged"


@pytest.mark.parametrize("does", ["time.sleep(3600)", "restore(); time.sleep(3600)"])
def test_a_signal_meanwhile_ends_all(criu: ScriptedCriu, does: str) -> None:
    criu.write(does)
    launched = criu.launch()
    wait_until(lambda: len(criu.started) == does.count(";") + 1, "criu has started")
    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=SECONDS)
    assert launched.returncode == 0
    for pid in criu.started:
        assert not is_running(pid)


def test_what_an_earlier_launcher_has_left_is_no_obstacle(criu: ScriptedCriu) -> None:
    meeting = criu.folder / "meeting"
    meeting.mkdir()
    (meeting / "launcher").touch()
    launched = criu.launch()
    assert launched.stdout
    assert launched.stdout.readline().startswith("serving")
    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=SECONDS)


def test_the_key_says_nothing_of_the_machine_but_its_cpu_and_kernel(criu: ScriptedCriu) -> None:
    described = json.loads((criu.images / key.FILE).read_text().partition("\n")[2])
    assert set(described) == key.NAMES
