"""The program that converts a GGUF file, as a process below this one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from predictor.errors import ModelError
from predictor.loading.gguf.header import GgufHeader

log = logging.getLogger(__name__)

PROGRAM = "predictor.loading.gguf.program"

_ROOT = Path(__file__).parents[3]
_NOT_ITS_OWN = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
"""Variables of the predictor's process alone."""


def size_of(header: GgufHeader) -> int:
    """Bytes of the converted file, at most: its numbers, and the tokenizer, which is larger as JSON."""
    numbers = sum(tensor.elements for tensor in header.tensors)
    texts = min(tensor.offset for tensor in header.tensors)
    return numbers * (4 if header.dtype == "float32" else 2) + 4 * texts


def run_conversion(file: Path, folder: Path, report: Callable[[int], None]) -> int:
    """Fill `folder`, and `report` percents. How many bytes of memory that took at most. Raises ModelError."""
    if find_spec("gguf") is None:
        raise ModelError(f"{file} needs the package gguf: pip install 'shangcai[predictor]'")
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_ITS_OWN}
    command = [sys.executable, "-m", PROGRAM, str(file.absolute()), str(folder.absolute()), str(os.getpid())]
    peak, error = 0, ""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                word, _, value = line.strip().partition(" ")
                match word:
                    case "progress":
                        report(int(value))
                    case "peak":
                        peak = int(value)
                    case "error":
                        error = value
                    case "warning":
                        log.warning("%s: %s", file, value)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if status or not peak:
            said.seek(0)
            lines = said.read().decode(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it has said nothing")
            raise ModelError(f"cannot convert {file}: {error or _end(status, last)}")
    return peak


def _end(status: int, last: str) -> str:
    if status == -9:
        return "the conversion was killed, as is done where memory is short"
    return f"the conversion ended with {status}: {last}"
