"""Where a model comes from: what is accepted, and how the rest is refused before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictor.errors import ModelError
from predictor.loading.model_source import check_source


def refusal(model: str) -> str:
    with pytest.raises(ModelError) as refused:
        check_source(model)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_folder_with_a_config_and_safetensors_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "model-00001-of-00002.safetensors").touch()

    check_source(str(tmp_path))


@pytest.mark.parametrize("model", ["gpt2", "Qwen/Qwen3-0.6B", "org-1/name_2.3"])
def test_a_hub_id_is_a_source(model: str) -> None:
    check_source(model)


def test_a_folder_without_config_is_told_so(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == f"the folder {tmp_path} holds no text model: there is no config.json in it"


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pt", "model.gguf"])
def test_a_folder_of_pickles_is_told_so(tmp_path: Path, weights: str) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / weights).touch()

    message = f"the folder {tmp_path} holds no *.safetensors; other weight formats are not loaded"
    assert refusal(str(tmp_path)) == message


def test_a_file_is_told_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()

    assert refusal(str(file)) == f"{file} is a file; give the folder that holds config.json and *.safetensors"


@pytest.mark.parametrize(
    "model", ["/mnt/models", "./poet", "../poet", "~/poet", "a/b/c", "a b", "", "-", "模型/诗人\n"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")  # where there are no such folders

    refusal(model)
