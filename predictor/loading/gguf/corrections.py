"""What transformers 5.23 leaves out of a GGUF file, though the model would be another without it.

What is known here is put right; what is not ends the conversion, because it would be served as noise, or nearly right.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from predictor.errors import ModelError
from predictor.loading.gguf.header import GgufHeader

_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|END_OF_TURN_TOKEN|>")
"""Tokens that end a text wherever they are special ones, as llama.cpp has it: a file names one of its ends."""

_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
"""Names of a file's own `general.sampling`, and those of a generation config."""

_FREQUENCIES = "rope_freqs.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of all Llama 3: a file has only what follows from them."""

_LARGE_GEMMA = {"gemma2": 46, "gemma3_text": 62}
"""Layers of the 27B models, whose attention is scaled in another way than that of the smaller ones."""


def correct_config(config: Any, header: GgufHeader) -> None:
    """Put right what the config of transformers lacks. Raises ModelError for what is not known here."""
    tables = (tensor for tensor in header.tensors if tensor.name == "token_embd.weight")
    config.vocab_size = max((tensor.shape[0] for tensor in tables), default=config.vocab_size)
    if config.num_hidden_layers == _LARGE_GEMMA.get(config.model_type):
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    _check_rotary_size(config, header)
    parameters = getattr(config, "rope_parameters", None) or {}
    parameters = parameters.get("full_attention", parameters)  # Gemma 3 says nothing of its other layers
    if "rope_theta" in parameters and header.own("rope.freq_base"):
        parameters["rope_theta"] = header.own("rope.freq_base")
    parameters.update(_rope_scaling(header, parameters.get("rope_theta")))


def generation_defaults(header: GgufHeader, tokens: dict[str, int], first: Any) -> dict[str, Any]:
    """Values for a generation config: the ids of the special `tokens` that end a text, beside those that are known
    `first`, and how the file wants texts to be sampled."""
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    ids = {header.metadata.get(f"tokenizer.ggml.{name}") for name in names}
    ids |= set(first) if isinstance(first, list) else {first}
    if header.architecture != "gpt-oss":  # its <|end|> is between the parts of an answer
        ids |= {tokens.get(name) for name in _ENDS}
    known = {ours: header.metadata.get(f"general.sampling.{name}") for name, ours in _SAMPLING.items()}
    values = {name: value for name, value in known.items() if value is not None}
    if values.get("temperature") == 0:
        values = {}
    return {"eos_token_id": sorted(ids - {None}), **values, **({"do_sample": True} if values else {})}


def check_all_read(model: Any, header: GgufHeader) -> None:
    """Raises ModelError unless the model has as many numbers as the file: transformers skips tensors that it does not
    know."""
    config = model.config
    further = {name for name in (tensor.name for tensor in header.tensors) if _is_further(name, config)}
    stored = sum(tensor.elements for tensor in header.tensors if tensor.name not in further)
    held = sum(parameter.numel() for parameter in model.parameters())
    if stored != held:
        raise ModelError(
            f"its tensors hold {stored:,} numbers, and transformers' {type(model).__name__} has {held:,}: "
            "it is not read in full"
        )


def _is_further(name: str, config: Any) -> bool:
    """Whether a tensor is none of the model's: a table, the embeddings once more, or of layers that guess ahead."""
    parts = name.split(".")
    return (
        parts[0].startswith("rope_")
        or (parts[0] == "output" and config.tie_word_embeddings)
        or (parts[0] == "blk" and int(parts[1]) >= config.num_hidden_layers)
    )


def _check_rotary_size(config: Any, header: GgufHeader) -> None:
    stated, parameters = header.own("rope.dimension_count"), getattr(config, "rope_parameters", None)
    if not isinstance(stated, int) or not isinstance(parameters, dict) or "rope_type" not in parameters:
        return  # no rotary positions, or others in each type of layers
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotary = int(size * (parameters.get("partial_rotary_factor") or 1.0))
    if stated != rotary:
        raise ModelError(f"it rotates {stated} numbers of each head, and transformers reads {rotary} from it")


def _rope_scaling(header: GgufHeader, theta: Any) -> dict[str, Any]:
    names = {tensor.name: tensor for tensor in header.tensors if tensor.name.startswith("rope_")}
    if unknown := sorted(names.keys() - {_FREQUENCIES}):
        raise ModelError(f"its positions are scaled by {unknown[0]}, which transformers does not read")
    if _FREQUENCIES in names and "qwen" not in header.architecture:
        tensor = names[_FREQUENCIES]
        with open(header.path, "rb") as file:
            factors = np.fromfile(file, np.float32, tensor.elements, offset=tensor.offset)
        return _llama3(factors, theta)
    if header.architecture == "gpt-oss":  # transformers reads it
        return {}
    prefix = f"{header.architecture}.rope.scaling."
    stated = {name.removeprefix(prefix): value for name, value in header.metadata.items() if name.startswith(prefix)}
    kind = stated.pop("type", None if "factor" not in stated else "linear")
    if kind in (None, "none"):
        return {}
    _refuse_unknown(stated.keys() - {"factor", "original_context_length", "finetuned"}, prefix)
    if kind == "linear":
        return {"rope_type": "linear", "factor": stated["factor"]}
    if kind == "yarn":
        length = stated["original_context_length"]
        return {"rope_type": "yarn", "factor": stated["factor"], "original_max_position_embeddings": length}
    raise ModelError(f"its positions are scaled by {kind}, which transformers does not read from GGUF")


def _refuse_unknown(names: Collection[str], prefix: str) -> None:
    if names:
        raise ModelError(f"its {prefix}{min(names)} is not read by transformers")


def _llama3(factors: Any, theta: float) -> dict[str, Any]:
    """The parameters of which these factors are made: by each one a frequency is divided."""
    factor, size = float(factors.max()), len(factors)
    lengths = 2 * math.pi * theta ** (np.arange(size) / size)
    context = _LLAMA3["original_max_position_embeddings"]
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    smooth = np.clip((context / lengths - low) / (high - low), 0.0, 1.0)
    if not np.allclose(factors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
        raise ModelError(f"its {_FREQUENCIES} scales positions in a way that transformers does not read from GGUF")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
