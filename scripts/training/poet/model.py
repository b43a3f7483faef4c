"""The poet's network, and the model folder that it is saved to."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.project import ROOT
from scripts.training.poet.tokenizer import BOS, EOS, PAD


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """Four wide layers rather than many narrow ones: on one core each layer costs its own overhead per token."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=320,
        intermediate_size=832,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    # Plain attention compiles into the step; on a CPU that is faster here than the fused kernel's backward pass.
    config._attn_implementation = "eager"
    return LlamaForCausalLM(config)


def grow(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """A deeper copy that computes the same: a copy after each layer that adds nothing yet. `layers` is a multiple."""
    config = copy.deepcopy(model.config)
    times, rest = divmod(layers, config.num_hidden_layers)
    if rest:
        raise ValueError(f"layers must be a multiple of {config.num_hidden_layers}, not {layers}")
    config.num_hidden_layers = layers
    config.layer_types = None
    grown = LlamaForCausalLM(config).to(model.dtype)
    grown.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    grown.model.norm.load_state_dict(model.model.norm.state_dict())
    for number, layer in enumerate(grown.model.layers):
        layer.load_state_dict(model.model.layers[number // times].state_dict())
        if number % times:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return grown


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model folder: weights in bfloat16, tokenizer, sampling settings and the hand-written files."""
    out.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.generation_config = GenerationConfig(
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        do_sample=True,
        temperature=0.75,
        top_k=40,
        top_p=1.0,
        max_new_tokens=96,
    )
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    for name in ("chat_template.jinja", "MODEL_CARD.md"):
        written = ROOT / "models" / "poet" / name
        if written.exists() and written.parent.resolve() != out.resolve():
            shutil.copy(written, out / name)
