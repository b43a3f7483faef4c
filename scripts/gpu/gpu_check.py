"""Check the engines on this machine's GPU and measure them: a table, and a JSON file for each part in build/gpu-check.

Needs torch (2.11 or later) with CUDA, transformers (5.17 or later) and this checkout. What else is missing can lie
beside it as wheels: `python -m scripts.gpu.wheels FOLDER` fetches them where PyPI can be reached. `--device cpu` shows
that the check itself works, with models so small that its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from scripts.gpu.figure import Figure, Machine, Part
from scripts.gpu.wheels import unpack
from scripts.progress import announced
from scripts.project import ROOT

PARTS = ("parity", "text_memory", "cancelling", "throughput", "transfers", "pictures", "cold_start")

PART_SECONDS = 470
"""A part that takes longer is ended; what it had found by then is kept."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check", description=__doc__)
    parser.add_argument("--device", default="cuda", help="a torch device (cuda)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas between them (all)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check", help="where the JSON goes")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels of what this Python lacks")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # how this program calls itself
    chosen = parser.parse_args()
    if chosen.part:
        _measure(chosen.part, Machine(chosen.device, chosen.out / "models"), chosen.out)
        return 0
    names = chosen.parts.split(",")
    if unknown := sorted(set(names) - set(PARTS)):
        parser.error(f"--parts: there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    if chosen.wheels and not any(chosen.wheels.glob("*.whl")):
        parser.error(f"--wheels: there are no wheels in {chosen.wheels}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as packages:
        if chosen.wheels:
            unpack(chosen.wheels, Path(packages))
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), packages)))
        failed = [name for name in announced(names, "part") if not _run(name, chosen.device, chosen.out, environment)]
    if failed:
        print(f"\nnot as promised: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _run(name: str, device: str, out: Path, environment: dict[str, str]) -> bool:
    """Run a part in a process of its own, and print what it has found; whether all is as promised."""
    file = out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "scripts.gpu.gpu_check", "--part", name, "--device", device, "--out", str(out)]
    print(f"\n{name}", flush=True)
    try:
        subprocess.run(command, cwd=ROOT, env=environment, timeout=PART_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        print(f"  {error}", flush=True)
        return False
    found: list[dict[str, Any]] = json.loads(file.read_text())["figures"]
    return all(figure["kept"] is not False for figure in found)


def _measure(name: str, machine: Machine, out: Path) -> None:
    """One part, in this process."""
    part: Part = import_module(f"scripts.gpu.{name}")
    figures: list[Figure] = []
    about = _about(machine.device)
    for figure in part.measure(machine):
        figures.append(figure)
        text = json.dumps({"machine": about, "figures": [asdict(one) for one in figures]}, indent=1)
        (out / f"{name}.json").write_text(text)
        kept = {None: "", True: "kept", False: "NOT KEPT"}[figure.kept]
        print(f"  {figure.what:<64}{figure.value!s:>12} {figure.unit:<14}{kept}".rstrip(), flush=True)


def _about(device: str) -> dict[str, str]:
    import torch
    import transformers

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}


if __name__ == "__main__":
    sys.exit(main())
