"""`python -m predictor dump`: which settings go into a snapshot, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from predictor.cpu.kernel_variables import KERNEL_VARIABLES
from predictor.dump_command import SECRET_CHARS, engine_arguments, source_files, write_snapshot
from predictor.loading.cache_folders import BESIDE_MODEL
from predictor.plan_settings import MOUNT_POINT
from predictor.settings import Settings
from predictor.snapshot import dumped_process, images, key
from tests.support.processes import ROOT
from tests.support.waiting import SECONDS
from wire.settings import read_settings

linux = pytest.mark.skipif(sys.platform != "linux", reason="CRIU is for Linux")


def test_only_what_an_engine_is_made_of_goes_in() -> None:
    given = ["--model", "models/poet", "--slots", "4", "--memory", "2Gi", "--no-pack-weights", "--guidance", "1.5"]
    given += ["--token", "a-secret-of-the-build", "--store-url", "redis://:secret@redis:6379/0", "--port", "1234"]
    given += ["--name", "spring", "--enable-thinking", "--kind", "text"]
    arguments = engine_arguments(read_settings(Settings, given))
    assert not [word for word in arguments if "secret" in word or "spring" in word or "1234" in word]
    kept = read_settings(Settings, arguments)
    for name in ("model", "slots", "memory", "pack_weights", "guidance", "enable_thinking", "kind"):
        assert getattr(kept, name) == getattr(read_settings(Settings, given), name), name


def test_the_model_goes_in_where_it_is_the_default_too() -> None:
    assert engine_arguments(Settings()) == ["--model", MOUNT_POINT]
    assert engine_arguments(read_settings(Settings, ["--model", MOUNT_POINT])) == ["--model", MOUNT_POINT]


def test_a_snapshot_is_tied_to_our_code_and_to_the_files_of_a_folder(tmp_path: Path) -> None:
    weights = tmp_path / "unet" / "model.safetensors"
    measured = tmp_path / BESIDE_MODEL / "fp_0.json"
    for file in (weights, measured):
        file.parent.mkdir()
        file.touch()
    found = source_files(str(tmp_path), None)
    assert str(weights) in found
    assert str(measured) not in found
    assert str(ROOT / "predictor" / "dump_command.py") in found


def test_a_snapshot_is_tied_to_what_the_hubs_cache_has_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    stored = tmp_path / "models--some--poet"
    for name, text in {"refs/main": "c0ffee", "refs/v1": "decaf", "blobs/1": "{}", "blobs/2": "[]"}.items():
        (stored / name).parent.mkdir(parents=True, exist_ok=True)
        (stored / name).write_text(text)
    for commit, blob in {"c0ffee": 1, "decaf": 2}.items():
        (stored / "snapshots" / commit).mkdir(parents=True)
        (stored / "snapshots" / commit / "config.json").symlink_to(stored / "blobs" / str(blob))

    def of_model(model: str, revision: str | None) -> set[str]:
        found = {Path(file) for file in source_files(model, revision)}
        return {str(file.relative_to(stored)) for file in found if file.is_relative_to(stored)}

    # The branch, too: once it has moved, a usual start loads another commit.
    assert of_model("some/poet", None) == {"refs/main", "snapshots/c0ffee/config.json"}
    assert of_model("some/poet", "v1") == {"refs/v1", "snapshots/decaf/config.json"}
    assert of_model("some/poet", "decaf") == {"snapshots/decaf/config.json"}
    assert of_model("some/painter", None) == set()


def dump(*arguments: str, criu: str = "/nowhere/criu") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "predictor", "dump", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "SNAPSHOT_CRIU": criu}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("--model", "models/poet")])
def test_it_needs_a_folder(arguments: tuple[str, ...]) -> None:
    answer = dump(*arguments)
    assert answer.returncode == 2
    assert answer.stderr == "usage: python -m predictor dump FOLDER [--FLAG VALUE …]\n"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    answer = dump(str(tmp_path), "--model", "models/poet")
    assert answer.returncode == 1
    assert answer.stderr == f"predictor dump: {tmp_path} is not empty\n"


WRITES = "import pathlib, sys; pathlib.Path(sys.argv[sys.argv.index('--images-dir') + 1], 'pages-1.img')"


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Dumped is one that does nothing, by whoever runs the tests."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*_: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "3600"]))
        return started[-1]

    monkeypatch.setattr(dumped_process, "start", start)
    for name in ("forget_host_name", "reach_pid", "wait_until_ready"):
        monkeypatch.setattr(dumped_process, name, lambda *_: None)
    monkeypatch.setattr(images, "fill_bounding_set", lambda *_: None)
    yield started
    for each in started:
        each.kill()
        each.wait()


def snapshot_by(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this Python in the place of criu."""
    criu = folder.with_name("criu")
    criu.write_text(f"#!{sys.executable} -S\n{program}\n")
    criu.chmod(0o755)
    monkeypatch.setenv("SNAPSHOT_CRIU", str(criu))
    write_snapshot(folder, Settings(model="models/poet"), os.geteuid(), folder.with_name("meeting"))


@linux
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (f"{WRITES}.touch(); sys.exit(3)", "ended with 3"),
        (f"{WRITES}.write_text('the-token-of-the-build')", "the images hold 1 secrets or host names"),
    ],
)
def test_a_failure_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    process: list[subprocess.Popen[bytes]],
    there: bool,
    program: str,
    reason: str,
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "the-token-of-the-build")
    folder = tmp_path / "snapshot"
    if there:
        folder.mkdir()
    with pytest.raises(RuntimeError, match=reason):
        snapshot_by(program, folder, monkeypatch)
    assert folder.exists() == there
    assert not folder.exists() or not list(folder.iterdir())
    assert process[0].poll() is not None
    snapshot_by(f"{WRITES}.touch()", folder, monkeypatch)
    assert {path.name for path in folder.iterdir()} == {"pages-1.img", key.FILE}


@linux
def test_the_dumped_process_has_the_variables_that_choose_how_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"OMP_NUM_THREADS": "1", "SNAPSHOT_THREADS": "1", **{name: f"some {name}" for name in KERNEL_VARIABLES}}
    for name, value in {**wanted, "SOME_TOKEN": "a-secret-of-the-build"}.items():
        monkeypatch.setenv(name, value)
    given: dict[str, str] = {}

    def start(*_: object, env: dict[str, str], **__: object) -> None:
        given.update(env)
        raise OSError("that is all")

    for name in ("forget_host_name", "reach_pid"):
        monkeypatch.setattr(dumped_process, name, lambda *_: None)
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(OSError, match="that is all"):
        snapshot_by("", tmp_path / "snapshot", monkeypatch)
    assert wanted.items() <= given.items()
    assert "SOME_TOKEN" not in given


@linux
def test_short_secrets_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: list[subprocess.Popen[bytes]]
) -> None:
    """They would be found by chance."""
    monkeypatch.setenv("SOME_TOKEN", "x" * (SECRET_CHARS - 1))
    snapshot_by(f"{WRITES}.write_text('{'x' * SECRET_CHARS}')", tmp_path / "snapshot", monkeypatch)


@linux
def test_a_machine_must_have_as_many_cores_as_the_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: list[subprocess.Popen[bytes]]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("SNAPSHOT_THREADS", "2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(RuntimeError, match="SNAPSHOT_THREADS is 2, and here 1 threads would compute"):
        snapshot_by(f"{WRITES}.touch()", tmp_path / "snapshot", monkeypatch)
    assert not process


INTERRUPTED = """
import os, sys, time
from pathlib import Path
from predictor import dump_command

def write(folder, *_):
    try:
        print("begun", flush=True)
        time.sleep(3600)
    finally:
        print("undone", flush=True)

dump_command.write_snapshot = write
sys.argv[1:] = ["dump", "/nowhere"]
from predictor.__main__ import run
run()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_failure_too(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=ROOT, stdout=subprocess.PIPE, text=True) as dumping:
        assert dumping.stdout
        assert dumping.stdout.readline() == "begun\n"
        dumping.send_signal(number)
        assert dumping.stdout.readline() == "undone\n"
        assert dumping.wait(SECONDS) == 128 + number
