"""In which type of numbers a CPU computes a language model where nobody has said it."""

from __future__ import annotations

from typing import Any

from predictor.cpu.features import computes_bfloat16

LEAST_PARAMETERS = 50_000_000
"""Parameters from which on reading the weights takes most of a step, so that half their bytes make it quicker. Smaller
models are computed in float32 on every CPU, and write the same texts on all of them."""


def prefers_bfloat16(config: Any) -> bool:
    """Whether a checkpoint of bfloat16 numbers with this config, of transformers, is computed in bfloat16 here."""
    return _parameters(config.get_text_config()) >= LEAST_PARAMETERS and computes_bfloat16()


def _parameters(text: Any) -> int:
    """About how many a transformer has: twelve times its width squared in each layer, and its embeddings. Experts are
    not counted: models that have some are large without."""
    width, layers = getattr(text, "hidden_size", 0), getattr(text, "num_hidden_layers", 0)
    return int(12 * layers * width**2 + text.vocab_size * width)
