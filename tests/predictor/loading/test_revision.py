"""A hub id at a revision: every file of the model is that revision's. The hub is its cache, with two snapshots."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from predictor.errors import ModelError
from predictor.loading.model_source import check_source
from predictor.pictures.pipeline_loading import load_pipeline
from predictor.text.checkpoint import Checkpoint, load_checkpoint

OLD, NEW = "a" * 40, "b" * 40
"""Commits; the tag v1 is the older one, and the branch main the newer."""


def rewrite(file: Path, **members: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | members))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Puts a model's folder on the hub as org/it, as two commits; the folder of the older one."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(folder: Path) -> Path:
        repository = tmp_path / "models--org--it"
        for commit, name in ((OLD, "v1"), (NEW, "main")):
            shutil.copytree(folder, repository / "snapshots" / commit)
            (repository / "refs").mkdir(exist_ok=True)
            (repository / "refs" / name).write_text(commit)
        return repository / "snapshots" / OLD

    return put


def test_a_text_model_is_the_revisions(tiny_model: Path, hub: Callable[[Path], Path]) -> None:
    old = hub(tiny_model)
    rewrite(old / "config.json", max_position_embeddings=128)
    rewrite(old / "generation_config.json", top_k=7)
    (old / "chat_template.jinja").write_text("{{ messages[0].content }}{{ messages[0].content }}")
    rewrite(old / "tokenizer_config.json", model_max_length=99)

    def load(revision: str | None) -> Checkpoint:
        return load_checkpoint("org/it", "cpu", "auto", lambda _phase: None, revision=revision)

    def seen(checkpoint: Checkpoint) -> list[object]:
        defaults, tokenizer = checkpoint.model.generation_config, checkpoint.tokenizer
        return [checkpoint.context, defaults.top_k, tokenizer.model_max_length, bool(tokenizer.chat_template)]

    for older in ("v1", OLD):
        assert seen(load(older)) == [128, 7, 99, True], older
    for newer in (None, "main", NEW):
        assert seen(load(newer))[::3] == [256, False], newer
    with pytest.raises(ModelError) as refused:
        load("v2")
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_weights_are_the_revisions(tiny_model: Path, hub: Callable[[Path], Path]) -> None:
    from safetensors.torch import load_file, save_file

    file = hub(tiny_model) / "model.safetensors"
    save_file({name: 0 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    for revision, empty in (("v1", True), (None, False)):
        model = load_checkpoint("org/it", "cpu", "auto", lambda _phase: None, revision=revision).model
        assert all(not bool(weight.any()) for weight in model.parameters()) is empty


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")  # diffusers 0.42 gives it
def test_a_pipeline_is_the_revisions(tiny_sd: Path, hub: Callable[[Path], Path]) -> None:
    old = hub(tiny_sd)
    rewrite(old / "generation_config.json", num_inference_steps=9)
    rewrite(old / "unet" / "config.json", sample_size=32)
    rewrite(old / "scheduler" / "scheduler_config.json", beta_end=0.02)
    for revision, expected in (("v1", [9, (64, 64), 0.02]), (None, [4, (32, 32), 0.012])):
        pipeline = load_pipeline("org/it", "cpu", "auto", lambda _phase: None, revision=revision)
        assert [pipeline.steps, pipeline.sizes.default, pipeline.pipe.scheduler.config.beta_end] == expected


def test_a_folder_has_no_revisions(tiny_model: Path) -> None:
    check_source("org/it", revision="v1")
    with pytest.raises(ModelError) as refused:
        check_source(str(tiny_model), revision="v1")
    assert str(refused.value) == f"--revision is for a hub id, and {tiny_model} is a folder: leave it out"
