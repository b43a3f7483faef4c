"""A tokenizer that is loaded from its file alone is the one that AutoTokenizer makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, GemmaTokenizer

from predictor.loading import tokenizer_file
from predictor.loading.tokenizer_file import load_tokenizer

ROOT = Path(__file__).parents[3]
TEXTS = ("春眠不觉晓", "a  b<bos>c</s>", " Hello, 世界 🍜\n", "<start_of_turn>user", "", "<题>春雨<七绝>")
MESSAGES = [{"role": "user", "content": "写一首关于春雨的诗"}]
TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.fixture(autouse=True)
def _every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_file, "LARGE_BYTES", 0)


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each tokenizer came from its file alone."""
    told: list[bool] = []
    completing = tokenizer_file._completed

    def complete(source: Path, whole: Tokenizer) -> Any:
        tokenizer = completing(source, whole)
        told.append(tokenizer is not None)
        return tokenizer

    monkeypatch.setattr(tokenizer_file, "_completed", complete)
    return told


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    """As Gemma's: bytes that are no tokens, merges, a token to begin with, and a class that builds all of it anew."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", *(f"<0x{n:02X}>" for n in range(256))]
    words += ["▁", "a", "b", "c", "春", "雨", "ab", "▁a", "H", "e", "l", "o", "ll", "user"]
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=[("a", "b"), ("▁", "a"), ("l", "l")], add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    return tmp_path


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    assert one.get_vocab() == other.get_vocab()
    assert (one.bos_token_id, one.eos_token_id, one.all_special_ids) == (
        other.bos_token_id,
        other.eos_token_id,
        other.all_special_ids,
    )
    assert one.chat_template == other.chat_template
    for text in TEXTS:
        ids = one(text)["input_ids"]
        assert ids == other(text)["input_ids"]
        assert one.decode(ids) == other.decode(ids)
        assert one.backend_tokenizer.decode(ids) == other.backend_tokenizer.decode(ids)
    if one.chat_template is not None:
        assert one.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False) == (
            other.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
        )
    assert json.loads(one.backend_tokenizer.to_str()) == json.loads(other.backend_tokenizer.to_str())


def test_a_class_that_builds_what_the_file_says_gets_the_file(gemma: Path, completed: list[bool]) -> None:
    same(load_tokenizer(str(gemma)), AutoTokenizer.from_pretrained(gemma))

    assert completed == [True]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["models/poet", "data/random-5m", "data/gemma-270m"])
def test_the_models_at_hand(folder: str) -> None:
    if not (ROOT / folder / "tokenizer.json").exists():
        pytest.skip("scripts/bench makes it")

    same(load_tokenizer(str(ROOT / folder)), AutoTokenizer.from_pretrained(ROOT / folder))


def _other_normalizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    tokenizer.save(str(folder / "tokenizer.json"))


def _one_token_more(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra_special_tokens": ["<wok>"]}))


def _mistral(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize("change", [_other_normalizer, _one_token_more, _mistral, _no_config])
def test_where_the_class_makes_another_of_it_the_long_way_is_gone(
    gemma: Path, completed: list[bool], change: Callable[[Path], None]
) -> None:
    change(gemma)

    same(load_tokenizer(str(gemma)), AutoTokenizer.from_pretrained(gemma))

    assert True not in completed


def test_a_small_file_goes_the_ordinary_way(
    tmp_path: Path, completed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_file, "LARGE_BYTES", 2**22)
    shutil.copytree(ROOT / "models" / "poet", tmp_path / "poet")

    assert load_tokenizer(str(tmp_path / "poet")).bos_token == "<s>"

    assert completed == []
