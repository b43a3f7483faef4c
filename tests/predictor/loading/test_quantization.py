"""Checkpoints that are quantized: what is installed runs them, or one line says what is missing, before any weight is
read."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from predictor.errors import ModelError
from predictor.loading import quantization
from predictor.loading.device_memory import model_bytes
from predictor.loading.quantization import weight_format
from predictor.text.checkpoint import Checkpoint, load_checkpoint
from tests.support.processes import ROOT


def load(folder: Path, **settings: Any) -> Checkpoint:
    return load_checkpoint(str(folder), "cpu", "auto", lambda _phase: None, **settings)


@pytest.fixture
def claim(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny model whose config claims to be quantized so. Its weights cannot be read, so nobody may try."""

    def make(name: str = "quantization_config", **config: Any) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "claim"))
        (folder / "model.safetensors").write_bytes(b"never read")
        document = json.loads((folder / "config.json").read_text()) | {name: config}
        (folder / "config.json").write_text(json.dumps(document))
        return folder

    return make


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(ModelError) as refused:
        load(folder, **settings)
    line = str(refused.value).removeprefix(f"cannot load {folder}: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("config", "package"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, "optimum"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "gptqmodel"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "accelerate"),
        ({"load_in_8bit": True}, "accelerate"),
        ({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {}}, "compressed-tensors"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}, "accelerate"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "torchao"),
        ({"quant_method": "hqq"}, "hqq"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("quant_method", "load_in_8bit"),
)
def test_a_package_that_is_missing_is_named(
    claim: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], package: str
) -> None:
    if package == "accelerate":  # which is installed where benchmarks run
        for module in ("bnb_4bit", "bnb_8bit", "finegrained_fp8"):
            monkeypatch.setattr(f"transformers.quantizers.quantizer_{module}.is_accelerate_available", lambda: False)
    line = refusal(claim(**config))
    method = config.get("quant_method", "bitsandbytes")
    assert line.startswith(f"its weights are quantized by {method}: ")
    assert package in line
    assert line.endswith("; install that, or take the model's plain checkpoint")


@pytest.mark.parametrize(
    ("name", "config", "method"),
    [
        ("quantization_config", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt"),
        ("quantization_config", {"quant_method": "of tomorrow"}, "of tomorrow"),
        ("quantization", {"group_size": 64, "bits": 4}, "an unknown method"),
    ],
)
def test_a_method_that_transformers_would_skip_is_refused(
    claim: Callable[..., Path], name: str, config: dict[str, Any], method: str
) -> None:
    line = f"its weights are quantized by {method}, which is not read here; take the model's plain checkpoint"
    assert refusal(claim(name, **config)) == line


def test_what_modelopt_says_in_a_file_of_its_own_is_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "hf_quant_config.json").write_text("{}")
    assert refusal(folder).startswith("its weights are quantized by modelopt, which is not read here")


@pytest.fixture
def mxfp4(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A random gpt-oss whose experts are in MXFP4, and the same one in plain numbers."""
    from transformers import GptOssConfig, GptOssForCausalLM
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    plain, packed = (Path(shutil.copytree(tiny_model, tmp_path / name)) for name in ("plain", "packed"))
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
        max_position_embeddings=128,
    )
    model = GptOssForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(plain)
    tensors = load_file(plain / "model.safetensors")
    quantized = dict(tensors)
    for name in [name for name in tensors if name.endswith((".gate_up_proj", ".down_proj"))]:
        experts, inputs, outputs = quantized.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        scales = torch.full((experts, outputs, inputs // 32), 120, dtype=torch.uint8)
        quantized |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        tensors[name] = convert_moe_packed_tensors(blocks, scales).contiguous()
    save_file(tensors, plain / "model.safetensors", {"format": "pt"})
    save_file(quantized, packed / "model.safetensors", {"format": "pt"})
    document = json.loads((plain / "config.json").read_text())
    document["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (packed / "config.json").write_text(json.dumps(document))
    return plain, packed


@pytest.mark.slow
def test_mxfp4_is_dequantized_where_there_are_no_kernels(
    mxfp4: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, quantization.__name__):
        plain, packed = (load(folder).model for folder in mxfp4)

    assert caplog.messages == ["its mxfp4 weights are dequantized, and take as much memory as a plain checkpoint's"]
    for name, tensor in plain.state_dict().items():
        assert packed.state_dict()[name].dtype == torch.float32
        assert torch.equal(packed.state_dict()[name], tensor), name
    assert model_bytes(packed) == model_bytes(plain)


@pytest.mark.parametrize(("installed", "compiler", "kept"), [
    ({"kernels", "triton", "accelerate"}, "/usr/bin/cc", True),
    ({"kernels", "triton", "accelerate"}, None, False),
    ({"triton", "accelerate"}, "/usr/bin/cc", False),
])  # fmt: skip
def test_kernels_are_wanted_where_they_can_be_compiled(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], compiler: str | None, kept: bool
) -> None:
    from transformers import GptOssConfig
    from transformers.quantizers.quantizer_mxfp4 import Mxfp4HfQuantizer

    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(quantization, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(quantization, "placement", lambda device: {"device_map": {"": device}})
    monkeypatch.setattr(shutil, "which", lambda _name: compiler)
    monkeypatch.setattr(Mxfp4HfQuantizer, "validate_environment", lambda *_, **__: None)
    config = GptOssConfig(quantization_config={"quant_method": "mxfp4"})
    form = weight_format("somewhere", None, config, "cuda", "auto", None)
    assert (form.plain, form.kept) == (False, kept)


def test_quantizing_twice_is_refused(claim: Callable[..., Path]) -> None:
    line = refusal(claim(quant_method="mxfp4"), quantize="int8")
    assert line == "its weights are quantized already: leave --quantize out"


def test_quantizing_needs_a_package(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None if name == "torchao" else True)
    line = refusal(tiny_model, quantize="int4")
    assert line == "--quantize int4 needs the package torchao: pip install 'shangcai[quantize]'"


@pytest.fixture(scope="module")
def torchao() -> Path:
    """A folder with the locked torchao. No environment of tests has it: transformers would import it in all of them."""
    [pinned] = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torchao==")]
    folder = ROOT / "data" / pinned.replace("==", "-")
    folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(new), pinned]
            installed = subprocess.run(pip, capture_output=True, text=True)
            if installed.returncode and not os.environ.get("CI"):
                pytest.skip(f"{pinned} cannot be installed: {installed.stderr.strip()[-200:]}")
            assert installed.returncode == 0, installed.stderr
            new.rename(folder)
    return folder


@pytest.mark.slow
def test_weights_of_few_bits_where_torchao_is_installed(torchao: Path) -> None:
    paths = os.pathsep.join((str(ROOT), str(torchao)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command.append(str(Path(__file__).with_name("quantized_weights.py")))
    made = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert "5 passed" in made.stdout, made.stdout


def test_quantized_weights_are_put_on_a_gpu_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaConfig

    monkeypatch.setattr(quantization, "find_spec", lambda _name: True)
    monkeypatch.setattr(quantization, "placement", lambda _device: {})
    with pytest.raises(ModelError) as refused:
        weight_format(str(tmp_path), None, LlamaConfig(), "cuda", "auto", "int8")
    line = "quantized weights on a GPU need the package accelerate: pip install 'shangcai[gpu]'"
    assert str(refused.value) == line


def test_the_bytes_of_a_tensor_that_consists_of_others_are_theirs() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    layer = torch.nn.Linear(8, 4, bias=False)
    assert model_bytes(layer) == 128
    parts = torch.zeros(4, 8, dtype=torch.int8), torch.zeros(4, 8, dtype=torch.int8)
    layer.weight = torch.nn.Parameter(TwoTensor(*parts), requires_grad=False)
    layer.register_buffer("scale", torch.zeros(4))
    assert model_bytes(layer) == 2 * 32 + 16
