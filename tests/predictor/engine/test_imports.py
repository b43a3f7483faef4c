"""What importing the engines costs before the port is open."""

from __future__ import annotations

import subprocess
import sys


def test_engines_are_imported_without_torch() -> None:
    """The server listens first; `load` imports torch, as a phase of its own."""
    code = (
        "import sys, predictor.text.transformers_engine, predictor.pictures.diffusers_engine\n"
        "print([name for name in ('torch', 'transformers', 'diffusers', 'PIL') if name in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
