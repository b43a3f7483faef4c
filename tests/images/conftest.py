"""Debian from its own packages, the images built on it, and what runs from them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.images.debian import debian, pip_settings
from tests.images.locked_versions import Distribution
from tests.images.processes import LIMIT, Served, answers, running, server, start
from tests.images.stores import build_lock, opened_store
from tests.support.processes import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
NEEDED = ("debootstrap", "buildah", "apt-get", "unshare")
BASE = "localhost/base"

Run = Callable[..., str]
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
    """The environment in which buildah has a store of its own."""
    with opened_store() as environment:
        yield environment


@pytest.fixture(scope="session")
def images(store: dict[str, str]) -> Images:
    def buildah(*arguments: str) -> str:
        command = ["buildah", *arguments]
        return subprocess.run(command, env=store, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    with tempfile.TemporaryDirectory(prefix="debian-") as folder, build_lock():
        if BASE not in buildah("images", "--format", "{{.Name}}").splitlines():
            root = debian(Path(folder, "root"))
            container = buildah("from", "scratch")
            buildah("copy", "--quiet", container, str(root), "/")
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


@pytest.fixture(scope="session")
def serve(images: Images, store: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Run an image's entry point in it, as its user and with its environment."""

    @contextmanager
    def run(image: str, ready: str, **environment: str) -> Iterator[Served]:
        container = images.buildah("from", f"shangcai/{image}:{version()}")
        config = configuration(images, image)
        port = free_port()
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
            wait_until(lambda: answers(f"{url}{ready}", started, log), f"an answer of {url}", LIMIT)
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
