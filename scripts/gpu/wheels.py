"""Packages that the machine with the GPU may lack, as wheels that travel beside the checkout.

python -m scripts.gpu.wheels FOLDER [--python 3.12]     where PyPI can be reached
scripts/gpu-check --wheels FOLDER                       where it cannot
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from scripts.project import ROOT

NEEDED = [
    "annotated-doc",
    "annotated-types",
    "cloudevents",
    "deprecation",
    "diffusers",
    "durationpy",
    "fastapi",
    "greenlet",
    "grpc-interceptor",
    "httptools",
    "kserve",
    "kubernetes",
    "oauthlib",
    "orjson",
    "pydantic",
    "pydantic-core",
    "pydantic-settings",
    "python-dotenv",
    "requests-oauthlib",
    "starlette",
    "timing-asgi",
    "typing-inspection",
    "uvicorn",
    "websocket-client",
]
"""Neither torch nor transformers depends on these, and the predictor needs them. constraints.txt has their versions."""

PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"]


def download(folder: Path, python: str) -> None:
    """Fetch the wheels for another machine's Python, as in "3.12"."""
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", *platforms]
    command += ["--constraint", str(ROOT / "constraints.txt"), "--dest", str(folder), *NEEDED]
    subprocess.run(command, check=True)


def unpack(folder: Path, packages: Path) -> None:
    """Put what the wheels hold into the folder `packages`, which can be a part of PYTHONPATH then."""
    for wheel in sorted(folder.glob("*.whl")):
        with ZipFile(wheel) as archive:
            archive.extractall(packages)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu.wheels", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheels go")
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python")
    chosen = parser.parse_args()
    download(chosen.folder, chosen.python)
    size = sum(wheel.stat().st_size for wheel in chosen.folder.glob("*.whl"))
    print(f"{size / 2**20:.0f} MiB of wheels in {chosen.folder}")


if __name__ == "__main__":
    main()
