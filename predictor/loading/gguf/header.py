"""The header of a GGUF file: what it says of itself, and where its tensors are.

The repository ggml-org/ggml specifies it. It is read before anything heavy is imported, so without numpy, which the
package gguf needs; that takes seconds for a large vocabulary, too.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from predictor.errors import ModelError

MAGIC = b"GGUF"

HEADER_BYTES = 2**27
"""Most bytes of a header: 262,000 tokens and their merges take 20 million."""

SAMPLE_BYTES = 4096
"""Bytes in the middle of each tensor that stand for all of it: reading all takes long."""

_VERSIONS = (2, 3)
_ALIGNMENT = 32
"""Of the tensors, where the file names no other."""

_F32, _F16 = 0, 1
"""ggml's numbers of types of tensors."""

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""How each type of numbers is written, for struct."""

MOST_NUMBERS = 4096
"""Longer arrays of numbers are left out: scores and types of tokens."""


@dataclass(frozen=True)
class GgufTensor:
    """`shape` is as torch has it, `type` one of ggml's numbers, and `offset` in bytes from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """`metadata` has all but the longest arrays and those of texts. `digest` is of the whole header, `size` of the file
    in bytes."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]
    size: int
    digest: bytes

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def generation_config(self) -> Path:
        """Where somebody may have written how texts are to be sampled by default, as for any other model."""
        return self.path.with_name("generation_config.json")

    @property
    def dtype(self) -> str:
        """The torch dtype that is nearest to the tensors: float32 or float16 of a file of these, else bfloat16."""
        types = {tensor.type for tensor in self.tensors if len(tensor.shape) > 1}
        return "float32" if types <= {_F32} else "float16" if types <= {_F32, _F16} else "bfloat16"

    def own(self, name: str) -> Any:
        """What the metadata say under this name for the file's architecture; None where they say nothing."""
        return self.metadata.get(f"{self.architecture}.{name}")

    def content_digest(self) -> str:
        """The same for the same content, wherever the file lies: of the header, and of a block in each tensor."""
        digest = hashlib.sha256(self.digest)
        digest.update(struct.pack("<Q", self.size))
        ends = sorted({tensor.offset for tensor in self.tensors} | {self.size})
        with open(self.path, "rb") as file:
            for begin, end in pairwise(ends):
                digest.update(os.pread(file.fileno(), SAMPLE_BYTES, max(begin, (begin + end - SAMPLE_BYTES) // 2)))
        return digest.hexdigest()


def is_gguf(path: str | Path) -> bool:
    """Whether the file says that it is one, or has the name of one."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC or str(path).lower().endswith(".gguf")
    except OSError:
        return False


def read_header(path: Path) -> GgufHeader:
    """Raises ModelError for a file that is none, or is cut off, or holds something else than a language model."""
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Parser(data).header(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no GGUF file that is read here: {_reason(error)}") from error
    kind = header.metadata.get("general.type", "model")
    if kind == "mmproj" or header.architecture == "clip":
        raise ModelError(f"{path} turns pictures into tokens (mmproj), and is no language model: give the other file")
    if kind != "model":
        raise ModelError(f"{path} holds no model: its general.type is {kind}")
    if int(header.metadata.get("split.count", 1)) > 1:
        raise ModelError(split_refusal(path))
    if not header.tensors:
        raise ModelError(f"{path} holds no tensors")
    return header


def split_refusal(path: str | Path) -> str:
    return f"{path} is one of several files of a model, which are not read: merge them with llama-gguf-split --merge"


def _reason(error: Exception) -> str:
    return str(error) if type(error) is ValueError else "it is cut off, or damaged"


def skip_texts(data: Any, at: int, count: int, end: int) -> int:
    """Behind so many texts, or anywhere behind `end`: half a million of them in a large vocabulary, at each start."""
    length = struct.Struct("<Q").unpack_from
    for _ in range(count):
        if at >= end:
            break
        at += 8 + length(data, at)[0]
    return at


class _Parser:
    """Goes through the bytes of a header. Raises ValueError or struct.error where they are wrong."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def header(self, path: Path) -> GgufHeader:
        if self._data[: len(MAGIC)] != MAGIC:
            raise ValueError("it does not begin with GGUF")
        self._at = len(MAGIC)
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"it is of version {version}, and {' and '.join(map(str, _VERSIONS))} are read")
        tensors, values = self._number("<Q"), self._number("<Q")
        metadata = {}
        for _ in range(values):
            name = self._text()
            metadata[name] = self._value(self._number("<I"))
        if not isinstance(metadata.get("general.architecture"), str):
            raise ValueError("it has no general.architecture")
        table = [self._tensor() for _ in range(tensors)]
        digest = hashlib.sha256(memoryview(self._data)[: self._at]).digest()
        alignment = max(1, int(metadata.get("general.alignment", _ALIGNMENT)))
        begin = -(-self._at // alignment) * alignment
        placed = tuple(GgufTensor(name, shape, type, begin + offset) for name, shape, type, offset in table)
        if any(tensor.offset >= len(self._data) for tensor in placed if tensor.elements):
            raise ValueError("it is cut off: tensors begin behind its end")
        return GgufHeader(path, metadata, placed, len(self._data), digest)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        dimensions = self._number("<I")
        if dimensions > 8:
            raise ValueError(f"the tensor {name} has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        return name, shape[::-1], self._number("<I"), self._number("<Q")

    def _value(self, type: int) -> Any:
        """None for an array that is left out."""
        if type == _STRING:
            return self._text()
        if type != _ARRAY:
            return self._number(self._form(type))
        of, count = self._number("<I"), self._number("<Q")
        if of == _STRING:
            self._at = skip_texts(self._data, self._at, count, min(HEADER_BYTES, len(self._data)))
            self._skip(0)
            return None
        form = self._form(of)
        if count > MOST_NUMBERS:
            self._skip(count * struct.calcsize(form))
            return None
        return [self._number(form) for _ in range(count)]

    def _form(self, type: int) -> str:
        if type not in _NUMBERS:
            raise ValueError(f"it holds a value of the unknown type {type}")
        return _NUMBERS[type]

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._skip(struct.calcsize(form))
        return value

    def _text(self) -> str:
        length = self._number("<Q")
        begin = self._at
        self._skip(length)
        return self._data[begin : self._at].decode()

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > min(HEADER_BYTES, len(self._data)):
            cut_off = self._at > len(self._data)
            raise ValueError("it is cut off" if cut_off else f"its header is larger than {HEADER_BYTES >> 20} MiB")
