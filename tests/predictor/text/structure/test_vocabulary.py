"""The bytes of each token, of every kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from predictor.text.structure.vocabulary import SPECIAL, vocabulary
from tests.support.processes import ROOT

NO_ENDS: frozenset[int] = frozenset()


def byte_level() -> Tokenizer:
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*characters, "Ġhi", "æľĪ", '{"']
    bpe = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["</s>"])
    bpe.add_tokens([AddedToken("<think>", special=False)])
    return bpe


def sentence_piece(model: models.Model) -> Tokenizer:
    """As Llama 2's and Gemma's."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def test_of_bytes() -> None:
    tokenizer = byte_level()
    known = vocabulary(tokenizer, frozenset({259}), 264)

    assert {token for token in known.tokens if len(token) == 1} == {bytes([byte]) for byte in range(256)}
    assert known.tokens[256:261] == [b" hi", "月".encode(), b'{"', SPECIAL + b"</s>", b"<think>"]
    assert known.ends == [259]
    # A model may have more logits than its tokenizer has tokens.
    assert [token[:1] for token in known.tokens[261:]] == [SPECIAL] * 3


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_of_pieces_and_bytes(kind: str) -> None:
    pieces = ["<unk>", "▁", "▁hi", "hi", "月", "▁{", "\n"] + [f"<0x{byte:02X}>" for byte in range(256)]
    if kind == "bpe":
        model: models.Model = models.BPE({piece: number for number, piece in enumerate(pieces)}, [], byte_fallback=True)
    else:
        model = models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0, byte_fallback=True)
    tokens = vocabulary(sentence_piece(model), NO_ENDS, len(pieces)).tokens

    assert tokens[1:7] == [b" ", b" hi", b"hi", "月".encode(), b" {", b"\n"]
    assert tokens[7 : 7 + 256] == [bytes([byte]) for byte in range(256)]


def test_of_pieces_alone() -> None:
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁hi", -1.0), ("hi", -1.0)], unk_id=0))
    unigram.decoder = decoders.Metaspace()

    assert vocabulary(unigram, NO_ENDS, 3).tokens[1:3] == [b" hi", b"hi"]


def test_of_the_embedded_poet() -> None:
    tokenizer = Tokenizer.from_file(str(Path(ROOT) / "models" / "poet" / "tokenizer.json"))
    known = vocabulary(tokenizer, frozenset({3}), 5414)

    assert "月".encode() in known.tokens
    assert "。\n".encode() in known.tokens
    assert known.tokens[3] == SPECIAL + b"</s>"
    for text in ("床前明月光，\n", "春风。\n"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(known.tokens[number] for number in ids).decode() == text


def test_a_model_without_an_end_gets_one_that_it_cannot_say() -> None:
    known = vocabulary(byte_level(), NO_ENDS, 260)

    assert known.ends == [260]
    assert len(known.tokens) == 261


def test_ends_are_no_texts() -> None:
    known = vocabulary(byte_level(), frozenset({-1, 256, 259, 999}), 260)

    assert known.ends == [256, 259]
    assert known.tokens[256] == SPECIAL + b" hi"
