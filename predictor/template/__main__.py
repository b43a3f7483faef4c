"""`python -m predictor.template`: started by the supervisor, which gives its orders over a socket that is passed on."""

from __future__ import annotations

import gc
import linecache
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from predictor.__main__ import run
from predictor.cpu.threads import prepare_threads
from predictor.imports.imported_modules import ModuleFiles, read_modules
from predictor.imports.lean_imports import lean_imports, lean_picture_imports, lean_server_imports
from predictor.loading.startup import process_age
from predictor.snapshot.gate import draw_seeds
from predictor.system_calls import end_with, return_free_memory
from predictor.systemd import inherited_listener
from predictor.template.control import receive, send
from predictor.template.fork import ForkError, Order, fork_predictor

CLOCK_TICK_NS = 20_000_000
"""The age of a process is known to a tick of 10 ms."""

NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""With this variable torch asks the driver for its devices, and makes no context, which no fork could use."""

RESIDENT_BYTES = 400 * 2**20
"""Most resident memory with all modules, and without tokenizers: a template that takes more is not worth it."""


class Template:
    """Does what the `supervisor` orders over `control`."""

    def __init__(self, control: socket.socket, supervisor: int) -> None:
        self._control = control
        self._supervisor = supervisor
        self._files = ModuleFiles(time.time_ns() - round(1e9 * process_age()) - CLOCK_TICK_NS)
        self._tokenizer_bytes = 0
        self._lean = ExitStack()
        """What is lent to modules while they are imported."""
        self._checks_by_nvml = NVML_CHECK in os.environ
        """As somebody has set it, for predictors, too."""
        os.environ[NVML_CHECK] = "1"

    def serve(self) -> None:
        """Until the supervisor closes the socket, or there is no use in going on."""
        with self._lean:
            self._lean.enter_context(lean_server_imports())
            self._lean.enter_context(lean_imports())
            while True:
                try:
                    order, descriptors = receive(self._control)
                except (EOFError, OSError):
                    return
                answer = self._answer(order, descriptors)
                send(self._control, answer)
                if answer.keys() & {"refused", "useless"}:
                    return

    def _answer(self, order: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Follow an order, unless a fresh process would be another one than what is forked."""
        try:
            if changed := self._files.changed():
                return {"refused": f"{changed} has changed"}
            return self._prepare(order) if "modules" in order else self._fork(order, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _prepare(self, order: dict[str, Any]) -> dict[str, Any]:
        """Import what predictors have imported, and load the tokenizers of folders."""
        names = [name for file in order["modules"] for name in read_modules(Path(file))]
        if any(name.startswith("diffusers.") for name in names):
            self._lean.enter_context(lean_picture_imports())
        with _silent():
            self._files.import_modules(names)
        _fill_caches()
        from predictor.loading.tokenizer_file import preload_tokenizer

        resident = _trimmed()
        if resident - self._tokenizer_bytes > RESIDENT_BYTES:
            return {"useless": f"it takes {resident >> 20} MiB of memory, more than {RESIDENT_BYTES >> 20}"}
        for source in order["tokenizers"]:
            preload_tokenizer(source)
        self._tokenizer_bytes += _trimmed() - resident
        gc.freeze()  # a collection of a child would write to all that it shares
        return {"ready": _resident()}

    def _fork(self, order: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """A predictor."""
        told = Order(self._supervisor, order["name"], order["arguments"], order["variables"], *descriptors)
        try:
            return {"pid": fork_predictor(told, self._run)}
        except (ForkError, OSError) as error:
            return {"refused": str(error)}

    def _run(self) -> NoReturn:
        """In the fork, which lends to modules by itself what they need while a model is loaded."""
        self._lean.close()
        if not self._checks_by_nvml:
            del os.environ[NVML_CHECK]  # a device that only the driver can use is none
        draw_seeds()
        run()


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' remarks on what is not installed: predictors that need it say so."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _fill_caches() -> None:
    """What is made at its first use, and kept: transformers compiles a thousand expressions for the names of weights,
    of all its models; and we read the versions of packages and our own code for the names of measurements."""
    from torch.nn import Linear

    from predictor.measurements.key import measurement_key

    measurement_key({"any": Linear(1, 1, device="meta")})
    mapping = sys.modules.get("transformers.conversion_mapping")
    if mapping is not None:
        with suppress(Exception):  # its own affair, which may change
            mapping.get_checkpoint_conversion_mapping("")


def _resident() -> int:
    """Bytes of this process that lie in memory."""
    from predictor.loading.device_memory import proc_bytes  # imports torch

    return proc_bytes(Path("/proc/self/status"), "VmRSS") or 0


def _trimmed() -> int:
    """Bytes of resident memory, after what is of no use has gone."""
    linecache.clearcache()
    gc.collect()
    return_free_memory()
    return _resident()


def main() -> None:
    supervisor = os.getppid()
    end_with(supervisor)
    control = inherited_listener()
    if control is None:
        print("predictor.template is started by scripts/run", file=sys.stderr)
        raise SystemExit(2)
    gc.disable()  # as in the predictor
    prepare_threads()
    Template(control, supervisor).serve()


if __name__ == "__main__":
    main()
