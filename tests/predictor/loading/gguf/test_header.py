"""A GGUF file's header: what is read of it, what stands for its content, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from predictor.errors import ModelError
from predictor.loading.gguf import header as header_module
from predictor.loading.gguf.conversions import conversion_key
from predictor.loading.gguf.header import read_header
from tests.predictor.loading.gguf.tiny_files import random_model, vocabulary, write_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "it.gguf", random_model(), "Q8_0")


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as refused:
        read_header(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_header_says_what_the_file_holds_and_where(file: Path) -> None:
    header = read_header(file)
    assert (header.architecture, header.own("context_length"), header.size) == ("llama", 256, file.stat().st_size)
    assert header.metadata["tokenizer.ggml.tokens"] is None
    table = next(tensor for tensor in header.tensors if tensor.name == "token_embd.weight")
    assert (table.shape, table.type) == ((len(vocabulary()), 64), 8)
    assert header.dtype == "bfloat16"


def test_the_key_is_that_of_the_content_at_any_place(file: Path, tmp_path: Path) -> None:
    key = conversion_key(read_header(file))
    other = tmp_path / "a folder" / "other.gguf"
    other.parent.mkdir()
    other.write_bytes(file.read_bytes())
    assert conversion_key(read_header(other)) == key


def test_the_key_changes_with_the_header_with_a_tensor_and_with_a_library(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, content = read_header(file), file.read_bytes()
    keys = {conversion_key(header)}
    file.write_bytes(content.replace(b"<|im_end|>\n", b"<|im_end|> "))
    keys.add(conversion_key(read_header(file)))
    places = sorted(tensor.offset for tensor in header.tensors)
    for begin, end in zip(places, [*places[1:], len(content)], strict=True):
        middle = (begin + end) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        keys.add(conversion_key(read_header(file)))
    file.write_bytes(content)
    monkeypatch.setattr("predictor.loading.gguf.conversions.package_version", lambda _package: "0")
    keys.add(conversion_key(read_header(file)))
    assert len(keys) == 3 + len(places)


def test_a_file_may_end_anywhere(file: Path) -> None:
    content = file.read_bytes()
    end = min(tensor.offset for tensor in read_header(file).tensors)
    for length in (0, 3, 4, 10, 24, 30, 100, end // 2, end - 100, end):
        file.write_bytes(content[:length])
        assert "cut off" in refusal(file) or "begin with GGUF" in refusal(file) or "empty" in refusal(file), length


def test_damaged_numbers_are_told_and_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file.read_bytes()
    for at in (8, 16, 24):  # how many tensors and values there are, and the length of the first name
        file.write_bytes(content[:at] + struct.pack("<Q", 2**63) + content[at + 8 :])
        assert "cut off" in refusal(file)
    file.write_bytes(b"GGUF" + struct.pack(">I", 3) + content[8:])
    assert "it is of version 50331648, and 2 and 3 are read" in refusal(file)
    file.write_bytes(content)
    monkeypatch.setattr(header_module, "HEADER_BYTES", 2**10)
    assert "its header is larger than" in refusal(file)


def test_what_is_no_language_model_is_told_so(tmp_path: Path) -> None:
    def written(**metadata: object) -> Path:
        return write_gguf(tmp_path / "it.gguf", random_model(), metadata=metadata)

    assert "(mmproj), and is no language model: give the other file" in refusal(written(**{"general.type": "mmproj"}))
    assert "holds no model: its general.type is adapter" in refusal(written(**{"general.type": "adapter"}))
    assert "llama-gguf-split --merge" in refusal(written(**{"split.count": 2}))
    assert "cannot be read: " in refusal(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "it does not begin with GGUF" in refusal(tmp_path / "text.gguf")
