"""Embeddings that stay as their file has them give the rows that converted ones would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from predictor.cpu import stored_embedding
from predictor.cpu.stored_embedding import StoredEmbedding, keep_stored_embedding, remapped

IDS = torch.tensor([[0, 3, 3, 6], [5, 1, 0, 2]])


class ScaledWordEmbedding(torch.nn.Embedding):  # type: ignore[misc]  # torch's layers are not typed
    """As in Gemma and BART."""

    def forward(self, ids: torch.Tensor) -> Any:
        return super().forward(ids) * torch.tensor(1.2345678).to(self.weight.dtype)


class Model(torch.nn.Module):  # type: ignore[misc]  # torch's modules are not typed
    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        self.embed = embedding

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embed

    def set_input_embeddings(self, embedding: torch.nn.Module) -> None:
        self.embed = embedding


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_embedding, "LEAST_BYTES", 0)


@pytest.mark.parametrize("kind", [torch.nn.Embedding, ScaledWordEmbedding])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_rows_are_exactly_those_of_a_converted_table(kind: type[torch.nn.Embedding], stored: torch.dtype) -> None:
    model = Model(kind(7, 20, padding_idx=6, dtype=stored))
    converted = kind(7, 20, padding_idx=6, _weight=model.embed.weight.detach().float())
    keep_stored_embedding(model, torch.float32)
    model.to(torch.float32)
    with torch.inference_mode():
        assert isinstance(model.embed, StoredEmbedding)
        assert torch.equal(model.embed(IDS), converted(IDS))
        assert torch.equal(model.embed(IDS[:, :0]), converted(IDS[:, :0]))
    assert next(model.parameters()).dtype == torch.float32, "what models ask their parameters for"
    assert torch.equal(model.embed.weight, converted.weight)
    assert model.embed.nbytes == 7 * 20 * 2


def test_what_computes_more_than_a_look_up_is_converted() -> None:
    class Positions(torch.nn.Embedding):  # type: ignore[misc]  # torch's layers are not typed
        pass

    shared = Model(torch.nn.Embedding(7, 20, dtype=torch.bfloat16))
    shared.head = torch.nn.Linear(20, 7, bias=False)
    shared.head.weight = shared.embed.weight
    renormed = torch.nn.Embedding(7, 20, max_norm=1.0, dtype=torch.bfloat16)
    for model in (shared, Model(Positions(7, 20, dtype=torch.bfloat16)), Model(renormed)):
        keep_stored_embedding(model, torch.float32)
        assert not isinstance(model.embed, StoredEmbedding)


def test_a_table_in_a_file_is_mapped_anew(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"table": torch.randn(50, 20), "other": torch.randn(3)}, file)
    table = load_file(file)["table"]
    again = remapped(table)
    assert again.data_ptr() != table.data_ptr()
    assert torch.equal(again, table)
    file.unlink()
    assert remapped(table) is table, "a file that is gone is not mapped again"
    anonymous = torch.randn(3, 3)
    assert remapped(anonymous) is anonymous
