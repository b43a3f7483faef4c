"""Every module and data file of our packages reaches the images, sub-packages included."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.images.sources import PACKAGES, ROOT, sources

pytestmark = pytest.mark.slow

IGNORED = ROOT / ".dockerignore"

START = """
import runpy, sys
from pathlib import Path

package, *packages = sys.argv[1:]
sys.argv = [package, "--help"]
try:
    runpy.run_module(package, run_name="__main__", alter_sys=True)
except SystemExit as ended:
    assert not ended.code, ended.code
modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}
assert f"{package}.settings" in modules
for name, module in modules.items():
    assert Path(module.__file__).is_relative_to(Path.cwd()), f"{name} is not from here but {module.__file__}"
"""
"""Start a package of the current folder, and make sure that no module comes from elsewhere."""


def patterns() -> list[str]:
    return [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]


def build_context() -> Iterator[Path]:
    """The files that .dockerignore leaves, relative to the root."""
    first, *rest = patterns()
    assert first == "*"  # all are excluded that are not named
    named = [pattern.removeprefix("!") for pattern in rest if pattern.startswith("!")]
    excluded = [pattern.removeprefix("**/") for pattern in rest if not pattern.startswith("!")]
    for name in named:
        for file in [ROOT / name, *(ROOT / name).rglob("*")]:
            path = file.relative_to(ROOT)
            if file.is_file() and not any(fnmatch(part, pattern) for part in path.parts for pattern in excluded):
                yield path


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    for path in build_context():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def app(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel of the build context holds, installed as the Dockerfiles do it."""
    folder = tmp_path_factory.mktemp("app")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--no-build-isolation"]
    answer = subprocess.run([*install, "--target", str(folder), str(context)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return folder


def test_exceptions_of_dockerignore_mean_the_same_to_every_tool() -> None:
    """A pattern in them does not (docker/cli#2919), and files of sub-packages would be left out without an error."""
    for pattern in patterns()[1:]:
        name = pattern.removeprefix("!") if pattern.startswith("!") else pattern.removeprefix("**/")
        assert not set("*?[/") & set(name), pattern


def test_dockerignore_lets_all_of_our_packages_through() -> None:
    found = set(build_context())
    assert sources() <= found
    assert {file for file in found if file.parts[0] in PACKAGES} <= sources()


def test_the_wheel_holds_all_of_our_packages(app: Path) -> None:
    found = {file.relative_to(app) for file in app.rglob("*") if file.is_file()}
    assert sources() <= found


def test_a_checkout_has_the_client_and_no_image_does(app: Path) -> None:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    setuptools: Any = importlib.import_module("setuptools")  # it has no types
    found = setuptools.find_packages(str(ROOT), include=configured["packages"]["find"]["include"])
    assert {"shangcai", *PACKAGES} <= set(found)
    assert configured["package-data"]["shangcai"] == ["py.typed"]
    assert not (app / "shangcai").exists()


@pytest.mark.parametrize(("package", "other"), [("web", "predictor"), ("predictor", "web")])
def test_each_server_starts_from_the_wheel_without_the_other(
    package: str, other: str, app: Path, tmp_path: Path
) -> None:
    shutil.copytree(app, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / other)
    answer = subprocess.run(
        [sys.executable, "-c", START, package, *PACKAGES], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("usage:")
