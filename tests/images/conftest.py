"""Debian from its own packages, the images built on it, and what runs from them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from tests.images.locked_versions import Distribution

ROOT = Path(__file__).parents[2]
NEEDED = ("debootstrap", "buildah", "apt-get", "unshare")
BASE = "localhost/base"
LIMIT = 120.0

Run = Callable[..., str]


class Served(NamedTuple):
    """A server that runs from an image."""

    url: str
    seconds: float
    """From the start of its process to its first answer."""
    process: psutil.Process
    """Of the server itself, not of what started it."""
    started: subprocess.Popen[bytes]
    log: Path


Serve = Callable[..., AbstractContextManager[Served]]


class Images(NamedTuple):
    """What scripts/build-images built, and what it printed."""

    table: str
    buildah: Run
    base: str


@pytest.fixture(scope="session")
def _possible() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    reason = f"needs {', '.join(missing)}" if missing else "needs root" if os.geteuid() else ""
    if reason and os.environ.get("CI"):
        pytest.fail(f"in CI images are built: {reason}")
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def store(_possible: None) -> Iterator[dict[str, str]]:
    """The environment of a buildah with a store of its own, which is gone afterwards with all that is in it."""
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        settings = Path(folder, "storage.conf")
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "CONTAINERS_STORAGE_CONF": str(settings)}
        for driver in ("overlay", "vfs"):  # the second copies each layer, and works everywhere
            settings.write_text(
                f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n'
            )
            if subprocess.run(["buildah", "from", "scratch"], env=environment, capture_output=True).returncode == 0:
                break
        yield environment
        subprocess.run(["buildah", "rm", "--all"], env=environment, check=True, capture_output=True)
        with suppress(FileNotFoundError):
            subprocess.run(["umount", f"{folder}/overlay"], capture_output=True)  # where it mounts its store on itself


@pytest.fixture(scope="session")
def images(store: dict[str, str]) -> Images:
    def buildah(*arguments: str) -> str:
        return subprocess.run(
            ["buildah", *arguments], env=store, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    with tempfile.TemporaryDirectory(prefix="debian-") as folder:
        debian = Path(folder, "root")
        suite, mirror = packages()
        packed = "python3,python3-venv,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packed}", suite, str(debian), mirror],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(debian / "var" / "cache" / "apt")
        for compiled in debian.glob(
            "usr/lib/python3*/**/*.pyc"
        ):  # the default base has none of its own library, either
            compiled.unlink()
        container = buildah("from", "scratch")
        buildah("copy", "--quiet", container, str(debian), "/")
        buildah("commit", "--quiet", "--rm", container, BASE)
        conf = Path(folder, "pip.conf")
        settings, folders = pip_settings()
        conf.write_text(settings)
        volumes = [part for path in folders for part in ("--volume", f"{path}:{path}:ro")]
        built = subprocess.run(
            ["scripts/build-images", "--tool", "buildah", "--base", BASE, "--pip-conf", str(conf), "--", *volumes],
            cwd=ROOT,
            env=store,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert built.returncode == 0, built.stdout[-5000:]
    table = built.stdout[built.stdout.index("\nshangcai/web:") :]
    print(table)
    return Images(table, buildah, BASE)


def packages() -> tuple[str, str]:
    """The suite and the mirror that this machine has its own packages from."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Component: main"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    suites = [line.split() for line in targets.splitlines()]
    return next((suite, mirror) for suite, mirror in suites if "-" not in suite)  # neither -updates nor -security


def pip_settings() -> tuple[str, list[Path]]:
    """This machine's settings of pip as a pip.conf, and the files and folders that they speak of."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    # The environment's come first, and count before the files'.
    found: dict[str, str] = {}
    for key, value in re.findall(r"^[^.]+\.(\S+)='(.*)'$", listed, re.MULTILINE):
        found.setdefault(key, value)
    found.pop("constraint", None)  # ours are the locked ones
    folders = []
    for word in " ".join(found.values()).replace("\\n", " ").split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            # The pages of an index link to files beside its folder.
            folders.append(path.parent if word.startswith("file://") else path)
    lines = [f"{key} = {value.replace(chr(92) + 'n', ' ')}" for key, value in found.items()]
    return "\n".join(["[global]", *lines]), folders


@pytest.fixture(scope="session")
def serve(images: Images, store: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Run an image's entry point in it, as its user and with its environment."""

    @contextmanager
    def run(image: str, ready: str, **environment: str) -> Iterator[Served]:
        container = images.buildah("from", f"shangcai/{image}:{version()}")
        config = configuration(images, image)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        prefix = "PREDICTOR_" if image == "predictor" else ""
        environment |= {f"{prefix}HOST": "127.0.0.1", f"{prefix}PORT": str(port)}
        settings = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        log = tmp_path_factory.mktemp("log") / f"{image}.log"
        with log.open("wb") as sink:
            started = subprocess.Popen(
                ["buildah", "run", *settings, container, "--", *config["Entrypoint"]],
                env=store,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: answers(f"{url}{ready}", started, log))
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            process = server(started, config["Entrypoint"])
            yield Served(url, now - start(process.pid), process, started, log)
        finally:
            for process in (
                [*reversed(psutil.Process(started.pid).children(recursive=True))] if running(started) else []
            ):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            started.wait(LIMIT)
            images.buildah("rm", container)

    return run


def running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def server(started: subprocess.Popen[bytes], entrypoint: list[str]) -> psutil.Process:
    children = psutil.Process(started.pid).children(recursive=True)
    return next(child for child in children if child.cmdline() == entrypoint)


def start(pid: int) -> float:
    """When a process started, in seconds since the machine did."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def answers(url: str, started: subprocess.Popen[bytes], log: Path) -> bool:
    assert running(started), log.read_text()
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def wait_until(holds: Callable[[], bool], pause: float = 0.02) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(pause)


def version() -> str:
    from importlib.metadata import version

    return version("shangcai")


def configuration(images: Images, image: str) -> dict[str, Any]:
    """What the image says of how it is run."""
    name = f"shangcai/{image}:{version()}"
    config: dict[str, Any] = json.loads(images.buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
    return config


@pytest.fixture(scope="session")
def configured(images: Images) -> Callable[[str], dict[str, Any]]:
    return lambda image: configuration(images, image)


@pytest.fixture(scope="session")
def within(images: Images) -> Callable[..., str]:
    """The output of a command that is run in an image, as its user."""

    def run(image: str, *command: str) -> str:
        container = images.buildah("from", f"shangcai/{image}:{version()}")
        try:
            return images.buildah("run", container, "--", *command)
        finally:
            images.buildah("rm", container)

    return run


@pytest.fixture(scope="session")
def installed(within: Callable[..., str]) -> Callable[..., list[Distribution]]:
    """The distributions of an image: all that its Python finds, or those of one folder."""
    code = """
import importlib.metadata, json, sys
found = importlib.metadata.distributions(path=sys.argv[1:] or sys.path)
print(json.dumps([(each.name, each.version, each.requires or []) for each in found]))
"""

    def read(image: str, *folder: str) -> list[Distribution]:
        answer = json.loads(within(image, "/opt/venv/bin/python", "-c", code, *folder))
        return [Distribution(name, version, tuple(requirements)) for name, version, requirements in answer]

    return read


@pytest.fixture
def mounted(images: Images) -> Iterator[Callable[[str], Path]]:
    """The root folder of an image."""
    containers: list[str] = []

    def mount(image: str) -> Path:
        containers.append(images.buildah("from", f"shangcai/{image}:{version()}"))
        return Path(images.buildah("mount", containers[-1]))

    yield mount
    for container in containers:
        images.buildah("umount", container)
        images.buildah("rm", container)
