"""What a converted GGUF file is: the model that was written to it, with its tokenizer, template and ends."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from predictor.errors import ModelError
from predictor.loading.gguf.conversions import conversion_key
from predictor.loading.gguf.header import read_header
from predictor.loading.gguf.program import convert
from predictor.text.checkpoint import Checkpoint, load_checkpoint
from tests.predictor.loading.gguf.tiny_files import random_model, vocabulary, write_gguf

PROMPT = [3, 70, 71, 72, 80, 5, 90, 101, 4, 66, 12, 40]


def checkpoint(file: Path, folder: Path, dtype: str = "float32") -> Checkpoint:
    folder.mkdir()
    convert(file, folder)
    return load_checkpoint(str(folder), "cpu", dtype, lambda _phase: None)


def differ(model: Any, other: Any) -> float:
    """The largest difference of two models' logits."""
    with torch.no_grad():
        return float((model(torch.tensor([PROMPT])).logits - other(torch.tensor([PROMPT])).logits).abs().max())


@pytest.mark.parametrize(
    ("stored", "dtype", "most"),
    [("F32", "float32", 1e-5), ("F16", "float16", 1e-3), ("BF16", "bfloat16", 5e-2), ("Q8_0", "bfloat16", 5e-2)],
)
def test_a_file_is_the_model_that_was_written_in_its_type(stored: str, dtype: str, most: float, tmp_path: Path) -> None:
    model = random_model()
    read = checkpoint(write_gguf(tmp_path / "it.gguf", model, stored), tmp_path / "it")
    assert json.loads((tmp_path / "it" / "config.json").read_text())["dtype"] == dtype
    assert differ(model, read.model) < most
    assert read.context == 256


def test_blocks_are_dequantized_as_llama_cpp_does(tmp_path: Path) -> None:
    model = random_model()
    write_gguf(tmp_path / "it.gguf", model, "Q4_1")
    read = checkpoint(tmp_path / "it.gguf", tmp_path / "it")
    weight = model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    kind = gguf.GGMLQuantizationType.Q4_1
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)
    found = load_weights(tmp_path / "it")["model.layers.1.mlp.down_proj.weight"]
    assert torch.equal(found, torch.from_numpy(expected).bfloat16())
    assert differ(model, read.model) < 1


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_the_tokenizer_the_template_and_the_ends_come_over(tmp_path: Path) -> None:
    sampling = {"general.sampling.temp": 0.25, "general.sampling.top_k": 7}
    ends = {"tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 0}
    write_gguf(tmp_path / "it.gguf", random_model(), metadata=sampling | ends)
    read = checkpoint(tmp_path / "it.gguf", tmp_path / "it")
    words = vocabulary()
    encoded = read.encode(({"role": "user", "content": "hello wé"},)).ids
    spelled = ["<|im_start|>", *"user", "Ċ", "hello", "Ġw", "Ã", "©", "<|im_end|>", "Ċ", "<|im_start|>", *"assistant"]
    assert [words[number] for number in encoded] == spelled
    assert read.tokenizer.decode(encoded[6:10]) == "hello wé"
    assert read.end_tokens == {0, 1, 2}, "those that the file names, and <|im_end|>"
    defaults = read.model.generation_config
    assert (defaults.do_sample, defaults.temperature, defaults.top_k) == (True, 0.25, 7)


def test_a_file_without_a_template_has_none(tmp_path: Path) -> None:
    read = checkpoint(write_gguf(tmp_path / "it.gguf", random_model(), template=None), tmp_path / "it")
    assert read.tokenizer.chat_template is None
    assert not read.model.generation_config.do_sample


LINEAR = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
YARN = {
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 4.0,
    "llama.rope.scaling.original_context_length": 64,
}


@pytest.mark.parametrize(
    ("metadata", "scaling"),
    [
        (LINEAR, {"rope_type": "linear", "factor": 4.0}),
        (YARN, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
        ({"llama.rope.scaling.type": "none"}, {"rope_type": "default"}),
    ],
)
def test_scaled_positions_come_over(metadata: dict[str, Any], scaling: dict[str, Any], tmp_path: Path) -> None:
    model = random_model(rope_parameters={"rope_theta": 5000.0, **scaling})
    read = checkpoint(write_gguf(tmp_path / "it.gguf", model, metadata=metadata), tmp_path / "it")
    assert differ(model, read.model) < 1e-5


def llama3_factors(factor: float, high: float = 4.0) -> Any:
    """As llama.cpp's converter computes them."""
    factors = []
    for index in range(8):
        length = 2 * math.pi * 5000.0 ** (2 * index / 16)
        smooth = min(1.0, max(0.0, (8192 / length - 1.0) / (high - 1.0)))
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def test_the_positions_of_llama_3_come_over_though_a_file_has_only_their_factors(tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    model = random_model(rope_parameters={"rope_theta": 5000.0, "rope_type": "llama3", **scaling})
    write_gguf(tmp_path / "it.gguf", model, tensors={"rope_freqs.weight": llama3_factors(8.0)})
    read = checkpoint(tmp_path / "it.gguf", tmp_path / "it")
    assert read.model.config.rope_parameters["rope_type"] == "llama3"
    assert differ(model, read.model) < 1e-5


PAIRS = {"rope_type": "default", "rope_theta": 5000.0}


@pytest.mark.parametrize(
    ("architecture", "model_type", "shape"),
    [
        ("qwen2", "qwen2", {}),
        ("qwen3", "qwen3", {"head_dim": 128}),
        ("phi3", "phi3", {"pad_token_id": 0}),
        ("starcoder2", "starcoder2", {}),
        ("gemma3", "gemma3_text", {"head_dim": 32, "sliding_window": 8, "tie_word_embeddings": True}),
    ],
)
def test_other_architectures_are_read(
    architecture: str, model_type: str, shape: dict[str, Any], tmp_path: Path
) -> None:
    if model_type == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": 10_000.0}
        shape = shape | {"rope_parameters": {"full_attention": PAIRS, "sliding_attention": local}}
    model = random_model(model_type, **shape)
    metadata = {"tokenizer.ggml.padding_token_id": 0}
    metadata |= {"gemma3.attention.sliding_window": 8} if architecture == "gemma3" else {}
    write_gguf(tmp_path / "it.gguf", model, architecture=architecture, metadata=metadata)
    assert differ(model, checkpoint(tmp_path / "it.gguf", tmp_path / "it").model) < 1e-4


def refusal(tmp_path: Path, **written: Any) -> str:
    file = write_gguf(tmp_path / "it.gguf", random_model(), **written)
    return conversion_error(file, tmp_path)


def conversion_error(file: Path, tmp_path: Path) -> str:
    with pytest.raises(ModelError) as refused:
        convert(file, tmp_path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_positions_that_are_not_read_are_refused(tmp_path: Path) -> None:
    longrope = {"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0}
    assert refusal(tmp_path, metadata=longrope).startswith("its positions are scaled by longrope")
    assert "yarn_log_multiplier" in refusal(tmp_path, metadata=YARN | {"llama.rope.scaling.yarn_log_multiplier": 0.1})
    other = {"rope_freqs.weight": llama3_factors(8.0, high=2.0)}
    assert refusal(tmp_path, tensors=other).startswith("its rope_freqs.weight scales positions")
    long = {"rope_factors_long.weight": llama3_factors(8.0)}
    assert refusal(tmp_path, tensors=long).startswith("its positions are scaled by rope_factors_long.weight")


def test_a_file_of_which_not_all_would_be_read_is_refused(tmp_path: Path) -> None:
    bias = {"blk.0.attn_q.bias": np.ones(64, np.float32)}
    assert refusal(tmp_path, tensors=bias).endswith("it is not read in full")


def test_a_rotary_size_and_shapes_that_transformers_does_not_read_are_refused(tmp_path: Path) -> None:
    model = random_model("qwen3", head_dim=32)
    file = write_gguf(tmp_path / "it.gguf", model, architecture="qwen3")
    message = "it rotates 32 numbers of each head, and transformers reads 128 from it"
    assert conversion_error(file, tmp_path) == message
    write_gguf(file, model, architecture="qwen3", metadata={"qwen3.rope.dimension_count": None})
    assert conversion_error(file, tmp_path) == "12 of the tensors that transformers expects are of another shape"


def test_a_file_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, metadata={"llama.block_count": 3})
    assert message == "9 of the tensors that transformers expects are not in it"


def test_architectures_and_types_that_are_not_read_are_named(tmp_path: Path) -> None:
    rwkv = write_gguf(tmp_path / "rwkv.gguf", random_model(), metadata={})
    rwkv.write_bytes(rwkv.read_bytes().replace(b"llama", b"rwkv9"))
    assert conversion_error(rwkv, tmp_path) == "its architecture rwkv9 is not read from GGUF by transformers"
    blocks = write_gguf(tmp_path / "blocks.gguf", random_model(), "Q8_0")
    content = blocks.read_bytes()
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 2 * 8
    for number, what in ((9, "the type Q8_1, which is not read"), (99, "the unknown type 99")):
        blocks.write_bytes(content[:at] + number.to_bytes(4, "little") + content[at + 4 :])
        assert conversion_error(blocks, tmp_path) == f"the tensor blk.0.attn_q.weight is of {what}"


def test_a_file_that_is_cut_off_is_told_so(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "it.gguf", random_model())
    file.write_bytes(file.read_bytes()[:-64])
    assert conversion_error(file, tmp_path).startswith("it is cut off within the tensor ")


def test_a_generation_config_beside_the_file_says_how_texts_are_sampled(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "it.gguf", random_model(), "F32")
    plain = conversion_key(read_header(file))
    beside = tmp_path / "generation_config.json"
    beside.write_text(json.dumps({"do_sample": True, "temperature": 0.6, "repetition_penalty": 1.1}))
    assert conversion_key(read_header(file)) != plain
    config = checkpoint(file, tmp_path / "it").model.generation_config
    assert (config.do_sample, config.temperature, config.repetition_penalty) == (True, 0.6, 1.1)
    assert config.eos_token_id


def test_what_is_no_generation_config_beside_the_file_is_told(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "it.gguf", random_model(), "F32")
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json is no generation config: "):
        checkpoint(file, tmp_path / "it")
