"""Perplexity, speed and memory of one model in one form, in a process of its own.

`python -m scripts.benchmarks.quality.variant MODEL SETTINGS` prints one line of JSON; SETTINGS is JSON for
EngineSettings.
"""

from __future__ import annotations

import json
import math
import os
import pydoc_data.topics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import uvloop
from transformers import AutoTokenizer

from predictor.engine.engine_settings import EngineSettings
from predictor.text.transformers_engine import TransformersEngine
from scripts.benchmarks.contenders import engine_writer, on_own_thread, tokens_per_second, write_together
from scripts.benchmarks.models import without_end
from scripts.benchmarks.quality.figures import SLOTS, Figures
from scripts.progress import tracked
from scripts.project import ROOT

TOKENS = 64
ROUNDS = 3
HELD_OUT = ROOT / "data" / "held-out-poems.json"
POEMS = 500
WINDOW = 512
WINDOWS = 4
"""Of each English text."""


def measure(model: Path, settings: dict[str, Any]) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        endless = without_end(model, Path(folder) / model.name)
        engine = TransformersEngine(EngineSettings(model=str(endless), device="cpu", max_concurrency=SLOTS, **settings))
        on_own_thread(lambda: engine.load(lambda _: None))
    write = engine_writer(engine)

    def speed(number: int) -> float:
        return tokens_per_second(lambda lengths: uvloop.run(write_together(write, lengths)), number, TOKENS, ROUNDS)

    uvloop.run(write_together(write, [4] * SLOTS))
    alone, together = speed(1), speed(SLOTS)
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    tokenizer = AutoTokenizer.from_pretrained(model)
    perplexity = poem_perplexity if model.name == "poet" else english_perplexity
    found = on_own_thread(lambda: perplexity(tokenizer, engine.core.checkpoint.model))
    engine.close()
    return Figures(found, alone, together, memory)


def poem_perplexity(tokenizer: Any, model: Any) -> float:
    """Per token of held-out poems, which are kept: reading the corpus takes minutes."""
    from scripts.training.evaluate_poet import perplexities
    from scripts.training.poet.corpus import Poem, fetch, load_poems, split

    if not HELD_OUT.exists():
        poems = split(load_poems(fetch(None)))[1][:POEMS]
        HELD_OUT.write_text(json.dumps([asdict(poem) for poem in poems]))
    return perplexities(tokenizer, model, [Poem(**kept) for kept in json.loads(HELD_OUT.read_text())])["all"]


def english_perplexity(tokenizer: Any, model: Any) -> float:
    """Per token of Python's reference, as Python carries it, and of these docs; each window stands alone."""
    docs = "\n".join((ROOT / "docs" / name).read_text() for name in ("models.md", "operating.md", "http.md"))
    reference = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
    losses = []
    for text in (docs, reference):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        for start in tracked(range(0, WINDOWS * WINDOW, WINDOW), "windows"):
            window = torch.tensor([[tokenizer.bos_token_id, *ids[start : start + WINDOW]]])
            with torch.inference_mode():
                logits = model(window).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, window[0, 1:]).item())
    return math.exp(sum(losses) / len(losses))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), json.loads(sys.argv[2]))._asdict()))
