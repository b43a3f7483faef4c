"""Tiny GGUF files, written with llama.cpp's own package from random models of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Those that stand for themselves in byte-level vocabularies."""

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}

MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w")


def vocabulary() -> list[str]:
    """Special tokens, all bytes, and what the merges make."""
    spelled = [chr(byte) if byte in _BYTES else None for byte in range(256)]
    others = iter(range(256, 512))
    alphabet = [letter or chr(next(others)) for letter in spelled]
    return [*SPECIAL, *alphabet, *("".join(merge.split(" ")) for merge in MERGES)]


def random_model(model_type: str = "llama", **shape: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(SHAPE | {"vocab_size": len(vocabulary())} | shape))
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.dim() == 1:
                parameter.uniform_(-0.1, 0.1)
    return model


def write_gguf(
    path: Path,
    model: Any,
    stored: str = "F32",
    *,
    architecture: str = "llama",
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
    template: str | None = TEMPLATE,
) -> Path:
    """A file of this model with large tensors of the type `stored`; further `metadata` are texts and numbers, None to
    leave one out."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    values: dict[str, Any] = {
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        f"{architecture}.attention.layer_norm_epsilon": getattr(config, "norm_epsilon", None),
        f"{architecture}.rope.freq_base": 5000.0,
        f"{architecture}.rope.dimension_count": getattr(config, "head_dim", None) or 16,
        f"{architecture}.attention.key_length": getattr(config, "head_dim", None) or 16,
        f"{architecture}.vocab_size": config.vocab_size,
        "general.type": "model",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": template,
        **(metadata or {}),
    }
    for name, value in values.items():
        match value:
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
    writer.add_token_list(vocabulary())
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(vocabulary()) - len(SPECIAL)))
    writer.add_token_merges(list(MERGES))
    names = gguf.get_tensor_name_map(
        next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), config.num_hidden_layers
    )
    written = {}
    for name, parameter in model.named_parameters():
        base, _, ending = name.rpartition(".")
        written[f"{names.get_name(base)}.{ending}"] = _as_llama_cpp(name, parameter, architecture, config)
    for name, data in (written | dict(tensors or {})).items():
        kind = gguf.GGMLQuantizationType[stored if data.ndim > 1 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _as_llama_cpp(name: str, parameter: torch.Tensor, architecture: str, config: Any) -> Any:
    """The numbers in llama.cpp's order, and norms with its offset."""
    data = parameter.detach().float()
    if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        data = data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
    if architecture.startswith("gemma") and "norm" in name:
        data = data + 1
    return np.ascontiguousarray(data.numpy())
