"""Tokenizers of one token for each byte."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def bytes_and(*added: str, special: bool = False) -> Tokenizer:
    """One token for each byte, as byte-level BPE has them when nothing merges, and the added ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(list(added))
    return tokenizer
