"""Pairs of poems by two poets, for a judge who does not know which poet wrote which.

Usage::

    python -m scripts.training.compare_poets models/poet OTHER_FOLDER --pairs pairs.json --key key.json

Both poets answer the same prompts of evaluation_prompts with the same seeds. ``--pairs`` gets a list of
``{"prompt", "a", "b"}``, for the judge; ``--key`` gets the folder that wrote each ``a``, in the same order.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch

from scripts.progress import tracked
from scripts.training.evaluate_poet import Poet
from scripts.training.poet.evaluation_prompts import PROMPTS

Write = Callable[[str], str]
"""A poet: the poem for a prompt, drawn with torch's random numbers."""


def pairs(prompts: list[str], poets: dict[str, Write], seed: int) -> tuple[list[dict[str, str]], list[str]]:
    """For each prompt a poem by each of two poets, in random order, and the name of the poet who wrote `a`."""
    rng = random.Random(seed)
    found, key = [], []
    for number, prompt in enumerate(tracked(prompts, "prompts")):
        names = list(poets)
        rng.shuffle(names)
        poems = []
        for name in names:
            torch.manual_seed(1000 * seed + number)
            poems.append(poets[name](prompt))
        found.append({"prompt": prompt, "a": poems[0], "b": poems[1]})
        key.append(names[0])
    return found, key


def writer(folder: Path) -> Write:
    """The poet of a model folder."""
    poet = Poet(folder)
    return lambda prompt: poet.generate(prompt)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write pairs of poems by two poets for a blind comparison.")
    parser.add_argument("first", type=Path, help="model folder")
    parser.add_argument("second", type=Path, help="model folder")
    parser.add_argument("--pairs", type=Path, required=True, help="file for the judge")
    parser.add_argument("--key", type=Path, required=True, help="file that says who wrote which")
    parser.add_argument("--count", type=int, default=50, help=f"prompts, at most {len(PROMPTS)}")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts chosen, the poems and the order")
    args = parser.parse_args()
    if not 1 <= args.count <= len(PROMPTS):
        parser.error(f"--count must be 1 to {len(PROMPTS)}, not {args.count}")
    prompts = random.Random(args.seed).sample(PROMPTS, args.count)
    if args.first == args.second:
        parser.error("the two folders must differ")
    found, key = pairs(prompts, {str(folder): writer(folder) for folder in (args.first, args.second)}, args.seed)
    for path, content in ((args.pairs, found), (args.key, key)):
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
