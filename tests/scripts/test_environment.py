"""scripts/environment.sh in a small checkout: which torch it installs, from package indexes on 127.0.0.1."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from scripts.torch_index import has_nvidia_driver
from tests.support.processes import ROOT, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are CPU builds only"),
]

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "shangcai"
version = "0.1.0"
[project.optional-dependencies]
predictor = ["torch>=2"]
web = []
otel = []
terminal = []
"""
BACKEND = """
import shutil

def build_editable(folder, *_):
    shutil.copy("shangcai-0.1.0-py3-none-any.whl", folder)
    return "shangcai-0.1.0-py3-none-any.whl"
"""
METADATA = [
    "Provides-Extra: predictor",
    "Provides-Extra: web",
    "Provides-Extra: otel",
    "Provides-Extra: terminal",
    "Requires-Dist: torch>=2; extra == 'predictor'",
]
RUN = """
import os, sys
from importlib.metadata import version
print("torch is", version("torch"), *sys.argv[3:])  # behind --called-from
"""


def make_wheel(folder: Path, name: str, version: str, more: list[str]) -> str:
    """A package that holds nothing but its metadata; its file name."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *more]) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\n"
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


class Checkout:
    """The scripts that make the environment, a project that needs torch only, and what was asked of the indexes."""

    def __init__(self, folder: Path, indexes: str, asked: list[str]) -> None:
        self.folder = folder
        self.indexes = indexes
        self.asked = asked
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"{indexes}/ordinary",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "SHANGCAI_TORCH_INDEX": f"{indexes}/cpu",
            "SHANGCAI_TORCH": "cpu",
        }

    def run(self, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in (self.variables | variables).items() if value}
        command = [str(self.folder / "scripts" / "run"), *flags]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    folder = tmp_path / "checkout"
    (folder / "scripts" / "local").mkdir(parents=True)
    for name in ("run", "environment.sh", "torch_index.py", "project.py", "__init__.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    for name in ("run.py", "__main__.py"):
        (folder / "scripts" / "local" / name).write_text(RUN)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "constraints.txt").write_text("torch==2.13.0\n")
    (folder / "backend.py").write_text(BACKEND)
    make_wheel(folder, "shangcai", "0.1.0", METADATA)  # an editable project is built anew each time
    # An environment as `python -m venv` makes it, but for pip: that is the one of the tests.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    [packages] = (folder / ".venv" / "lib").glob("python3.*/site-packages")
    # Not by its spec, for which setuptools replaces a distutils that other tests may have imported, and warns of that.
    (packages / "pip").symlink_to(Path(str(distribution("pip").locate_file("pip"))))

    asked: list[str] = []
    pages = tmp_path / "indexes"
    (pages / "empty" / "torch").mkdir(parents=True)
    for index, version in (("cpu", "2.13.0+cpu"), ("ordinary", "2.13.0")):
        (pages / index / "torch").mkdir(parents=True)
        wheel = make_wheel(pages / index / "torch", "torch", version, [])
        (pages / index / "torch" / "index.html").write_text(f'<a href="{wheel.replace("+", "%2B")}">{wheel}</a>')

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(pages))

        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Checkout(folder, f"http://127.0.0.1:{server.server_address[1]}", asked)
        server.shutdown()


def test_torch_comes_from_the_index_of_cpu_builds_and_only_once(checkout: Checkout) -> None:
    first = checkout.run("--port", "0")
    assert first.stdout.splitlines()[-1].startswith("torch is 2.13.0+cpu"), first.stdout + first.stderr
    assert first.stderr == ""
    checkout.asked.clear()
    again = checkout.run()
    assert again.stdout.splitlines()[-1].startswith("torch is 2.13.0+cpu")
    assert checkout.asked == []

    # Another version of ours is installed, and torch stays.
    (checkout.folder / "pyproject.toml").write_text(PROJECT + "\n")
    anew = checkout.run(SHANGCAI_TORCH="")
    assert "torch is 2.13.0+cpu" in anew.stdout
    assert not any("whl" in path for path in checkout.asked)


@pytest.mark.parametrize("path", ["proc/driver/nvidia/version", "dev/nvidia0", "usr/lib/wsl/lib/nvidia-smi"])
def test_a_driver_is_found_by_its_files_or_its_program(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_nvidia_driver(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert has_nvidia_driver(tmp_path)

    program = tmp_path / "nvidia-smi"
    program.touch(mode=0o755)
    assert has_nvidia_driver(tmp_path / "nowhere")


@pytest.mark.skipif(has_nvidia_driver(), reason="there is a driver here")
def test_without_a_driver_torch_has_no_cuda_and_one_line_says_so(checkout: Checkout) -> None:
    ended = checkout.run(SHANGCAI_TORCH="")
    assert "torch is 2.13.0+cpu" in ended.stdout
    assert ended.stderr == (
        f"torch comes from {checkout.indexes}/cpu, without CUDA: there is no NVIDIA driver here "
        "(SHANGCAI_TORCH=cuda takes it)\n"
    )


@pytest.mark.parametrize("silent", [False, True])
def test_an_index_that_cannot_be_reached_is_told_in_one_line_and_done_without(checkout: Checkout, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections, and says nothing
        port = listener.getsockname()[1] if silent else free_port()
        index = f"http://127.0.0.1:{port}"
        ended = checkout.run(SHANGCAI_TORCH_INDEX=index)
    assert ended.stdout.splitlines()[-1].startswith("torch is 2.13.0")
    assert "+cpu" not in ended.stdout
    assert ended.stderr == (
        f"{index} cannot be reached: torch comes from pip's own index, there perhaps with gigabytes of CUDA\n"
    )


def test_an_index_without_the_version_is_told_and_done_without(checkout: Checkout) -> None:
    ended = checkout.run(SHANGCAI_TORCH_INDEX=f"{checkout.indexes}/empty")
    assert ended.stdout.splitlines()[-1] == "torch is 2.13.0"
    assert ended.stderr.endswith("torch could not be installed in that way: it comes from pip's own index\n")


def test_a_flag_chooses_and_a_later_choice_replaces_what_is_there(checkout: Checkout) -> None:
    assert "torch is 2.13.0 --torch cuda" in checkout.run("--torch", "cuda").stdout
    kept = checkout.run(SHANGCAI_TORCH="auto")
    assert "torch is 2.13.0" in kept.stdout
    assert "+cpu" not in kept.stdout
    changed = checkout.run("--port", "1", "--torch=cpu")
    assert "torch is 2.13.0+cpu --port 1 --torch=cpu" in changed.stdout, changed.stderr
    assert "torch is 2.13.0 --torch=cuda" in checkout.run("--torch=cuda").stdout
    checkout.asked.clear()
    assert "torch is 2.13.0 --torch=cuda" in checkout.run("--torch=cuda").stdout
    assert checkout.asked == []


def test_an_unknown_choice_is_refused(checkout: Checkout) -> None:
    ended = checkout.run("--torch", "rocm")
    assert ended.returncode == 1
    assert ended.stderr.endswith("scripts/run: torch is chosen by auto, cpu or cuda, and not by rocm\n")
    assert ended.stderr.count("\n") == 1


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A checkout that this user may not write to, or root's to the user that `as_another` stands for."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "scripts").mkdir()
        for name in ("run", "environment.sh"):
            shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
        for name in ("pyproject.toml", "constraints.txt"):
            (folder / name).touch()
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def as_another(folder: Path) -> str:
    """The only line that scripts/run fails with, as a user without rights in the folder."""
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    command = [str(folder / "scripts" / "run")]
    ended: subprocess.CompletedProcess[str] = subprocess.run(  # its overloads do not take users
        command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, cwd="/", **user
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    return ended.stderr.removeprefix(f"{folder}/scripts/run: ")


def test_a_checkout_that_cannot_be_written_to_is_told_so(foreign: Path) -> None:
    said = f"{foreign} cannot be written to, and .venv is made in it; take a checkout where you may write\n"
    assert as_another(foreign) == said


@pytest.mark.parametrize("mode", [0o500, 0o555])
def test_an_environment_of_another_user_is_told_so(foreign: Path, mode: int) -> None:
    foreign.chmod(0o755)
    (foreign / ".venv").mkdir(mode=mode)
    owner = (foreign / ".venv").owner()
    assert as_another(foreign) == (
        f"{foreign}/.venv is {owner}'s and cannot be written to; let {owner} run this, or take a checkout of your own\n"
    )
    (foreign / ".venv").chmod(0o755)


def test_an_environment_whose_python_cannot_be_run_is_told_so(foreign: Path) -> None:
    """It may be that of another user, or may have been removed since."""
    foreign.chmod(0o755)
    (foreign / ".venv" / "bin").mkdir(parents=True)
    (foreign / ".venv" / "bin" / "python").touch(mode=0o644)
    files = [(foreign / name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "scripts/environment.sh")]
    sum_of_all = subprocess.run(["cksum"], input=b"".join(files), capture_output=True, check=True).stdout
    (foreign / ".venv" / "installed-predictor,web,otel,terminal").write_bytes(sum_of_all)
    said = f"{foreign}/.venv has no python that can be run here; remove .venv, or take a checkout of your own\n"
    assert as_another(foreign) == said
