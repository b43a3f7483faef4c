"""A number of optimiser steps with a learning rate, log lines and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scripts.progress import progress


def rate_at(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate: a linear rise, then a cosine to zero."""
    return peak * min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2


@dataclass
class Loop:
    """One optimiser's run of a number of steps, with its checkpoint."""

    name: str
    parts: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    checkpoint: Path
    steps: int

    def __post_init__(self) -> None:
        self.step = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.parts.load_state_dict(state["parts"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            self.step = state["step"]
        self.peaks = [group["peak"] for group in self.optimizer.param_groups]
        self.window, self.losses = 0.0, 0
        self.cpu = time.process_time()

    @property
    def running(self) -> bool:
        """Whether steps are left; sets the rate for the next one."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = rate_at(self.step, self.steps, peak, 100)
        return self.step < self.steps

    def left(self) -> Iterator[None]:
        """Once for each step that is left."""
        with progress(f"{self.name}, steps", self.steps) as bar:
            while self.running:
                bar.reach(self.step)
                yield

    def learn(self, loss: Tensor) -> None:
        """One optimiser step, and a log line after every 50."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.window, self.losses = self.window + loss.item(), self.losses + 1
        if self.losses == 50:
            spent = (time.process_time() - self.cpu) / 50
            progress = f"{self.name} step {self.step}/{self.steps}  loss {self.window / 50:.4f}"
            print(f"{progress}  {spent:.3f} s of CPU a step", flush=True)
            self.window, self.losses, self.cpu = 0.0, 0, time.process_time()

    def save(self) -> None:
        """Replace the checkpoint; if this is interrupted, the old one stays."""
        state = {"parts": self.parts.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        fresh = self.checkpoint.with_suffix(".new")
        torch.save({**state, "rng": torch.get_rng_state()}, fresh)
        fresh.replace(self.checkpoint)
