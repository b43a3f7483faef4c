"""The start of a predictor that has been restored: its model is loaded, and all else is read anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from predictor import metrics
from predictor.cpu.kernel_variables import kernel_variables
from predictor.cpu.threads import thread_count
from predictor.engine.engine_settings import EngineSettings
from predictor.errors import ModelError
from predictor.loading.early_port import Ports, open_ports
from predictor.loading.startup import Startup
from predictor.settings import Settings
from predictor.snapshot.gate import Gate
from wire.settings import read_settings
from wire.telemetry.logs import set_up_logging


def wait_for_restore(
    settings: Settings, engine_settings: Callable[[Settings], EngineSettings]
) -> tuple[Settings, Ports, Startup]:
    """Wait at the gate with an engine of these settings, which is loaded. The settings of the restored process, its
    listening sockets, and its start, which begins with the restore.

    Raises OSError, or ModelError for settings and machines that another engine is needed for: `engine_settings` are
    those of an engine. The launcher is told, too.
    """
    assert settings.wait_for_restore is not None
    dumped = engine_settings(settings)
    memory = _memory(dumped)
    computing = _Computing.here()
    gate = Gate(settings.wait_for_restore)
    gate.wait()
    startup = Startup()
    metrics.PHASE.clear()
    startup.enter("restored")
    try:
        settings = _settings()
        _check(dumped, engine_settings(settings), memory, computing)
        ports = open_ports(settings, gate.listener)
    except (ModelError, OSError) as error:
        gate.answer(str(error))
        raise
    gate.answer()
    startup.record("port open", startup.seconds)
    set_up_logging(settings.log_level, settings.log_format, again=True)
    return settings, ports, startup


def _settings() -> Settings:
    try:
        return read_settings(Settings)
    except SystemExit:  # what is wrong stands on the standard error, and the usual start says it once more
        raise ModelError("the settings cannot be read") from None


def _check(dumped: EngineSettings, wanted: EngineSettings, memory: int, computing: _Computing) -> None:
    names = [name for name in dumped.__slots__ if getattr(dumped, name) != getattr(wanted, name)]
    if names := [name for name in names if name != "cache_folder"]:  # nothing is measured any more
        raise ModelError(f"another engine is wanted than was dumped: {', '.join(names)}")
    computing.check(_Computing.here())
    available = _memory(wanted)
    if memory > available:
        raise ModelError(f"slots were planned for {memory} bytes of memory, and here there are {available}")


@dataclass(frozen=True)
class _Computing:
    """What decides how a CPU rounds: how work is split, and the kernels. `threads` are those that compute any model,
    `of_small` those of a token of a small language model."""

    threads: int
    of_small: int
    kernels: Mapping[str, str | None]

    @classmethod
    def here(cls) -> _Computing:
        cores = len(os.sched_getaffinity(0))
        return cls(thread_count(cores), thread_count(cores, 0), kernel_variables())

    def check(self, here: _Computing) -> None:
        """Raises ModelError where others are wanted here."""
        for what, dumped, wanted in (
            ("it", self.threads, here.threads),
            ("a small language model", self.of_small, here.of_small),
        ):
            if dumped != wanted:
                raise ModelError(f"{what} was dumped with {dumped} threads, and here there would be {wanted}")
        if names := [name for name, value in self.kernels.items() if here.kernels[name] != value]:
            raise ModelError(f"it was dumped with another {', '.join(names)}, which chooses kernels")


def _memory(settings: EngineSettings) -> int:
    import torch

    from predictor.loading.device import choose_device
    from predictor.loading.device_memory import available_memory

    available = available_memory(torch.device(choose_device(settings.device)))
    return min(available, settings.memory or available)
