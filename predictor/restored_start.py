"""The start of a predictor that has been restored: its model is loaded, and all else is read anew."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from predictor import metrics
from predictor.cpu.threads import thread_count
from predictor.engine.engine_settings import EngineSettings
from predictor.errors import ModelError
from predictor.loading.early_port import Ports, open_ports
from predictor.loading.startup import Startup
from predictor.settings import Settings
from predictor.snapshot.gate import Gate
from wire.settings import read_settings


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
    computing = _threads()
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
    logging.getLogger().setLevel(settings.log_level.upper())
    return settings, ports, startup


def _settings() -> Settings:
    try:
        return read_settings(Settings)
    except SystemExit:  # what is wrong stands on the standard error, and the usual start says it once more
        raise ModelError("the settings cannot be read") from None


def _check(dumped: EngineSettings, wanted: EngineSettings, memory: int, computing: tuple[int, int]) -> None:
    names = [name for name in dumped.__slots__ if getattr(dumped, name) != getattr(wanted, name)]
    if names := [name for name in names if name != "cache_folder"]:  # nothing is measured any more
        raise ModelError(f"another engine is wanted than was dumped: {', '.join(names)}")
    # How work is split decides how a CPU rounds.
    for what, dumped_with, here in zip(("it", "a small language model"), computing, _threads(), strict=True):
        if dumped_with != here:
            raise ModelError(f"{what} was dumped with {dumped_with} threads, and here there would be {here}")
    available = _memory(wanted)
    if memory > available:
        raise ModelError(f"slots were planned for {memory} bytes of memory, and here there are {available}")


def _threads() -> tuple[int, int]:
    """That compute any model, and a token of a small language model."""
    cores = len(os.sched_getaffinity(0))
    return thread_count(cores), thread_count(cores, 0)


def _memory(settings: EngineSettings) -> int:
    import torch

    from predictor.loading.device import choose_device
    from predictor.loading.device_memory import available_memory

    available = available_memory(torch.device(choose_device(settings.device)))
    return min(available, settings.memory or available)
