"""`python -m predictor dump FOLDER`: a snapshot of a loaded predictor, for predictor.snapshot.

Needs root, CRIU, and no seccomp filter. Only what the engine is made of is in the snapshot: all other settings are read
when it is restored.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from predictor.cpu.kernel_variables import KERNEL_VARIABLES
from predictor.cpu.threads import snapshot_threads, thread_count
from predictor.engine.engine_settings import EngineSettings
from predictor.loading.cache_folders import BESIDE_MODEL
from predictor.loading.model_source import cached_folder
from predictor.settings import Settings
from predictor.snapshot import dumped_process, images, key
from predictor.snapshot.launcher import CRIU
from predictor.snapshot.meeting_point import FOLDER
from wire.settings import read_settings

LOAD_SECONDS = 1800.0
"""Longest that a model may take until it can be dumped: as long as a pod may take to start."""

USER = 65532
"""Of the predictor in its image; SNAPSHOT_USER says otherwise."""

_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(^|_)KEY|STORE_URL")
SECRET_CHARS = 8
"""Of the least that is looked for: shorter texts are in hundreds of megabytes by chance."""


def dump(argv: Sequence[str]) -> int:
    """Write a snapshot to the folder that is the first argument; the others are those of `python -m predictor`. Returns
    the exit status."""
    if not argv or argv[0].startswith("-"):
        print("usage: python -m predictor dump FOLDER [--FLAG VALUE …]", file=sys.stderr)
        return 2
    folder = Path(argv[0])
    settings = read_settings(Settings, argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _give_up)
    try:
        write_snapshot(folder, settings, int(os.environ.get("SNAPSHOT_USER", USER)))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"predictor dump: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:,.0f} MB")
    return 0


def _give_up(number: int, _: object) -> NoReturn:
    """End by an exception, so that what was begun is undone; and not with 0, by which an image would be committed."""
    raise SystemExit(128 + number)


def engine_arguments(settings: Settings) -> list[str]:
    """The model, and what else an engine is made of where that is not the default, as flags; others may be secrets."""
    names = ["kind", "lean_imports", *(field.name for field in fields(EngineSettings))]
    found = ["--model", settings.model]
    for name in names:
        if name in ("model", "cache_folder"):
            continue
        value = getattr(settings, name)
        if value == Settings.model_fields[name].get_default():
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            found += [f"--{flag}", str(int(value) if isinstance(value, int) else value)]
    return found


def write_snapshot(folder: Path, settings: Settings, user: int, meeting_point: Path = Path(FOLDER)) -> None:
    """Start a predictor with these settings, dump it, and end it. Raises OSError or RuntimeError, and leaves nothing
    in the folder then."""
    if folder.exists() and any(folder.iterdir()):
        raise RuntimeError(f"{folder} is not empty")
    with _undone_after_failure(folder):
        os.chown(folder, user, user)
        _write(folder, settings, user, meeting_point)


@contextmanager
def _undone_after_failure(folder: Path) -> Iterator[None]:
    """Make a folder, unless there is an empty one, and leave nothing in it after any exception: half a snapshot may
    hold what must not be in one, and the next try would not begin."""
    there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in folder.iterdir():
            path.unlink()
        if not there:
            folder.rmdir()
        raise


def _write(folder: Path, settings: Settings, user: int, meeting_point: Path) -> None:
    computing = thread_count(len(os.sched_getaffinity(0)))
    if (wanted := snapshot_threads()) and computing < wanted:  # no pod with so many would restore it
        raise RuntimeError(f"SNAPSHOT_THREADS is {wanted}, and here {computing} threads would compute")
    unwanted = [os.uname().nodename, *_secrets()]
    dumped_process.forget_host_name()
    shutil.rmtree(meeting_point, ignore_errors=True)
    meeting_point.mkdir(mode=0o700, parents=True)
    os.chown(meeting_point, user, user)
    dumped_process.reach_pid()
    arguments = [*engine_arguments(settings), "--wait-for-restore", str(meeting_point)]
    process = dumped_process.start(arguments, user, KERNEL_VARIABLES)
    try:
        dumped_process.wait_until_ready(process, meeting_point, LOAD_SECONDS)
        files = [*dumped_process.mapped_files(process.pid), *source_files(settings.model, settings.revision)]
        bounding_set = images.bounding_set(Path(f"/proc/{process.pid}/status").read_text())
        run_criu(["dump", "--tree", str(process.pid)], folder, user)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(meeting_point, ignore_errors=True)
    for name in ("criu.log", "stats-dump"):
        (folder / name).unlink(missing_ok=True)
    images.fill_bounding_set(folder, bounding_set)
    if leaked := images.find(folder, [text for text in unwanted if len(text) >= SECRET_CHARS]):
        raise RuntimeError(f"the images hold {len(leaked)} secrets or host names of this machine; nothing is written")
    described = key.describe(str(folder), str(meeting_point), files)
    described["user"] = user
    key.write(str(folder), described)
    for path in folder.iterdir():
        path.chmod(0o400)
        os.chown(path, user, user)


def run_criu(command: Sequence[str], folder: Path, user: int) -> None:
    """Run criu as this user, which has its capabilities of the file: to dump a process of another one it would need
    more. Raises RuntimeError with the lines of its log, or OSError."""
    program = os.environ.get("SNAPSHOT_CRIU") or CRIU
    log = folder / "criu.log"
    options = ["--images-dir", str(folder), "--log-file", str(log), "-v1", "--manage-cgroups=ignore"]
    ids: dict[str, Any] = {}
    if user != os.geteuid():
        ids = {"user": user, "group": user, "extra_groups": []}
        options.append("--unprivileged")
    done = subprocess.run([program, *command, *options], **ids)  # noqa: S603
    if done.returncode:
        said = log.read_text().strip() if log.exists() else "it has written no log"
        raise RuntimeError(f"{program} ended with {done.returncode}: {said}")


def source_files(model: str, revision: str | None) -> list[str]:
    """The files of our code and of the model: what was read of them is in the images. Of a hub id they are those that
    huggingface_hub's cache has, and its note of which commit a branch is."""
    root = Path(__file__).parents[1]
    folders = [root / name for name in ("contract", "wire", "predictor")]
    found: list[Path] = []
    if os.path.isdir(model):
        folders.append(Path(model).absolute())
    elif os.path.isfile(model):
        found.append(Path(model).absolute())
    elif cached := cached_folder(model, revision):
        folders.append(cached)
        found.append(cached.parents[1] / "refs" / (revision or "main"))
    found += [path for folder in folders for path in folder.rglob("*")]
    # What is measured lies beside the model, and starts write it.
    return [str(path) for path in found if path.is_file() and path.suffix != ".pyc" and BESIDE_MODEL not in path.parts]


def _secrets() -> list[str]:
    return [value for name, value in os.environ.items() if _SECRET.search(name)]
