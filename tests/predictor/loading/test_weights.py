"""Ways to read weights: the model is the same by each, and what cannot be had is one clear line."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from predictor.errors import ModelError
from predictor.loading import weights
from predictor.loading.weights import placement, read_weights
from predictor.plan_settings import LoadFormat
from predictor.text.checkpoint import Checkpoint, load_checkpoint


def load(folder: Path, load_format: LoadFormat) -> Checkpoint:
    return load_checkpoint(str(folder), "cpu", "auto", lambda _phase: None, load_format)


@pytest.fixture(scope="module")
def sharded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in two files, beside a third that its index does not name."""
    folder = tmp_path_factory.mktemp("sharded")
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    save_file({name: torch.zeros(1) for name in names}, folder / "other.safetensors", {"format": "pt"})
    places = {name: file for file, part in files.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("load_format", ["runai_streamer", "fastsafetensors"])
@pytest.mark.parametrize("folder", ["tiny_model", "sharded"])
def test_the_model_is_the_same(request: pytest.FixtureRequest, folder: str, load_format: LoadFormat) -> None:
    path: Path = request.getfixturevalue(folder)
    ours, plain = load(path, load_format).model, load(path, "safetensors").model
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert ours.generation_config.to_dict() == plain.generation_config.to_dict()
    assert not ours.training


@pytest.fixture(scope="module")
def tiny_mixture(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 with four experts, each in tensors of its own."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    folder = tmp_path_factory.mktemp("mixture")
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    config = Qwen3MoeConfig(
        vocab_size=400,
        hidden_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("load_format", ["runai_streamer", "fastsafetensors"])
def test_experts_are_not_in_memory_twice(
    tiny_mixture: Path, monkeypatch: pytest.MonkeyPatch, load_format: LoadFormat
) -> None:
    names = load_file(tiny_mixture / "model.safetensors").keys()
    assert any(".experts.3." in name for name in names), "or there is nothing to merge"
    read: list[object] = []
    for way in ("_streamed", "_fast"):
        monkeypatch.setattr(weights, way, lambda *arguments: read.append(arguments))

    model = load(tiny_mixture, load_format).model

    assert not read, "then all experts were there before they were merged"
    assert any(name.endswith(".experts.gate_up_proj") for name in model.state_dict())


def test_transformers_reads_by_itself_on_a_cpu(tiny_model: Path) -> None:
    assert find_spec("runai_model_streamer"), "or this would be true for another reason"
    assert read_weights(str(tiny_model), "cpu", "auto") is None


def test_for_a_gpu_what_is_installed_is_taken(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], str]] = []
    installed = {"accelerate", "fastsafetensors"}
    monkeypatch.setattr(weights, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(weights, "_streamed", lambda files, device: asked.append((["streamed", *files], device)))
    monkeypatch.setattr(weights, "_fast", lambda files, device: asked.append((["fast", *files], device)))
    read_weights(str(tiny_model), "cuda", "auto")
    installed.add("runai_model_streamer")
    read_weights(str(tiny_model), "cuda", "auto")
    read_weights(str(tiny_model), "cuda", "safetensors")
    read_weights("some/hub-id", "cuda", "auto")
    files = [str(tiny_model / "model.safetensors")]
    assert asked == [(["fast", *files], "cuda"), (["streamed", *files], "cuda")]


def test_tensors_go_straight_to_a_gpu_where_somebody_places_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda _name: None)
    assert placement("cuda") == {}
    monkeypatch.setattr(weights, "find_spec", lambda _name: True)
    assert placement("cuda") == {"device_map": {"": "cuda"}}
    assert placement("cpu") == {}


@pytest.mark.parametrize(
    ("installed", "source", "said"),
    [
        (None, "", "the load format runai_streamer needs the package runai-model-streamer"),
        (True, "some/hub-id", "the load format runai_streamer reads from a folder, not from a hub"),
    ],
)
def test_what_cannot_be_had_is_said(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, installed: bool | None, source: str, said: str
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda _name: installed)
    with pytest.raises(ModelError) as refused:
        read_weights(source or str(tiny_model), "cpu", "runai_streamer")
    assert str(refused.value) == said
