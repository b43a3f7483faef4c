"""The training loop: a run of so many optimiser steps that can be stopped at any time and continued."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from scripts.progress import tracked
from scripts.training.poet.optimizers import build_optimizers

WARMUP_STEPS = 40
CHECKPOINT_SECONDS = 240.0
REPORT_STEPS = 5

Batch = tuple[Tensor, Tensor]
"""Ids and labels, both (poems, width)."""


class Source(Protocol):
    """An endless supply of batches, the same for the same seed."""

    def batches(self) -> Iterator[Batch]:
        """What one optimiser step learns."""
        ...


class Run:
    """A training run that can be stopped at any time and continued from its checkpoint as if it had not been."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        *,
        peak: float,
        steps: int,
        checkpoint: Path,
        bfloat16: bool = False,
        save_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.model, self.peak, self.steps, self.bfloat16 = model, peak, steps, bfloat16
        self.checkpoint, self._save_seconds = checkpoint, save_seconds
        self.optimizers = build_optimizers(model, peak)
        self.step = self.seen = 0
        if checkpoint.exists():
            state: dict[str, Any] = torch.load(checkpoint)
            model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seen = state["step"], state["seen"]

    def save(self) -> None:
        """Write the checkpoint; a crash leaves the old one or the new one whole."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {"model": self.model.state_dict(), "optimizers": optimizers, "step": self.step, "seen": self.seen}
        partial = self.checkpoint.with_name(self.checkpoint.name + ".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def fit(self, poems: Source, *, compiled: bool) -> None:
        """Train to the last step. `poems` must be fresh: what the checkpoint has seen of them is passed over."""
        for _ in range(self.step):
            list(poems.batches())
        loss_of = torch.compile(step_loss, dynamic=False) if compiled else step_loss
        start = saved = time.monotonic()
        window, learnt = 0.0, 0
        for _ in tracked(range(self.step, self.steps), "steps"):
            set_learning_rate(self.optimizers, learning_rate(self.step, self.steps, self.peak))
            batches = list(poems.batches())
            tokens = learnt_tokens(batches)
            for ids, labels in batches:
                loss = loss_of(self.model, ids, labels, self.bfloat16) / tokens
                loss.backward()
                window += loss.item()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.step, self.seen, learnt = self.step + 1, self.seen + tokens, learnt + tokens
            if self.step % REPORT_STEPS == 0:
                elapsed = time.monotonic() - start
                rate = f"{learnt / elapsed:.0f} tok/s"
                loss_text = f"loss {window / REPORT_STEPS:.4f}"
                print(f"{elapsed / 60:6.1f} min  step {self.step}  {loss_text}  {rate}", flush=True)
                window = 0.0
            if time.monotonic() - saved >= self._save_seconds:
                self.save()
                saved = time.monotonic()
        self.save()


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A short rise, then a straight line to nothing after the last step."""
    return peak * min((step + 1) / WARMUP_STEPS, (steps - step) / max(1, steps - WARMUP_STEPS), 1)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def step_loss(model: LlamaForCausalLM, ids: Tensor, labels: Tensor, bfloat16: bool) -> Tensor:
    """Summed cross-entropy of one micro-batch, ids and labels both (poems, width)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    )


def learnt_tokens(batches: list[Batch]) -> int:
    """Tokens that count in the loss."""
    return sum(int((labels != -100).sum()) for _, labels in batches)
