"""Embeddings that stay as their file has them, where the model computes in float32.

The largest tensor of many models is a table of embeddings in bfloat16, which is the last layer's weight, too. That
layer gets a packed weight of its own (predictor.cpu.packed_linear), and of the table a text needs a few rows: they are
read from the file's mapping and converted when they are asked for, so that no second copy lies in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call

LEAST_BYTES = 32 * 2**20
"""Bytes of a table from which on that saves more than it costs, which is 0.1 ms a step."""

SMALL_BYTES = 2**20
"""Bytes of a tensor that is copied and not mapped."""


class StoredEmbedding(torch.nn.Module):  # type: ignore[misc]  # torch's modules are not typed
    """An `embedding` of float32 numbers whose `table` [words, features] is of a shorter type.

    Every bfloat16 and float16 is a float32, so the rows are exactly those of a converted table. What a subclass does
    beside looking up, such as scaling, it does in float32.
    """

    def __init__(self, embedding: torch.nn.Embedding, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table  # no buffer: `to` would convert it
        embedding.padding_idx = None  # it is for training, and no row of the few that are looked up
        # Models look at this for their type.
        embedding.weight = torch.nn.Parameter(torch.empty(0, table.shape[1]), requires_grad=False)
        self.embedding = embedding

    @property
    def weight(self) -> torch.Tensor:
        """The whole table in float32, made anew each time: for the few models that compute with it themselves."""
        return self.table.float()

    @property
    def nbytes(self) -> int:
        """Bytes of the table, which lie in memory as far as they were looked up."""
        return int(self.table.nbytes)

    def forward(self, input: torch.Tensor) -> Any:
        """Of ids of any shape, as Embedding's."""
        rows = self.table[input.flatten()].float()
        places = torch.arange(len(rows), device=rows.device).view(input.shape)
        return functional_call(self.embedding, {"weight": rows}, (places,))


def keep_stored_embedding(model: Any, dtype: torch.dtype) -> None:
    """Let the input embedding of a model of transformers keep its stored numbers, where the model is to compute in
    `dtype`: its last layer must have been packed, or have a weight of its own."""
    embedding = model.get_input_embeddings()
    if not _only_looks_up(embedding) or embedding.weight.nbytes < LEAST_BYTES or embedding.weight.device.type != "cpu":
        return
    if any(layer.weight is embedding.weight for layer in model.modules() if type(layer) is torch.nn.Linear):
        return
    table = remapped(embedding.weight.detach())
    for parameter in model.parameters():  # a small one would keep the mapping of the whole file, all read by now
        if parameter.nbytes < SMALL_BYTES:
            parameter.data = parameter.data.clone()
    if table.dtype == dtype:
        embedding.weight = torch.nn.Parameter(table, requires_grad=False)
    elif dtype == torch.float32 and table.dtype in (torch.bfloat16, torch.float16):
        model.set_input_embeddings(StoredEmbedding(embedding, table))


def _only_looks_up(embedding: Any) -> bool:
    kind = type(embedding)
    plain = kind is torch.nn.Embedding or kind.__name__.endswith("ScaledWordEmbedding")
    return plain and embedding.max_norm is None


def remapped(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in a new mapping of their file, of which nothing is in memory yet; the tensor itself where it is
    not mapped. The old mapping, of the whole file, ends with its last tensor."""
    mapping = _mapping(tensor.data_ptr())
    if mapping is None or not tensor.is_contiguous():
        return tensor
    path, offset = mapping
    first, rest = divmod(offset, tensor.element_size())
    if rest:
        return tensor
    try:
        file = torch.from_file(path, shared=False, size=first + tensor.numel(), dtype=tensor.dtype)
    except RuntimeError:  # it was deleted
        return tensor
    return file[first:].view(tensor.shape)


def _mapping(address: int, maps: Path = Path("/proc/self/maps")) -> tuple[str, int] | None:
    """Which file is mapped at `address`, and which of its bytes is there; None outside of mappings and of Linux."""
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        span, _, offset, _, _, *path = line.split(maxsplit=5)
        first, last = (int(bound, 16) for bound in span.split("-"))
        if first <= address < last:
            return (path[0], int(offset, 16) + address - first) if path and path[0].startswith("/") else None
    return None
