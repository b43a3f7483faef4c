"""The painter's tokenizer: one token for each known word, `<unk>` for everything else."""

# ruff: noqa: S106 - "token" is a piece of text here

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scripts.training.painter.corpus import Thing

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
PAD, UNK, BOS, EOS = range(4)
PROMPT = 8  # tokens of the longest prompt


def vocabulary(things: list[Thing]) -> list[list[str]]:
    """What each thing goes by: its emoji and its words."""
    return [[*thing.glyphs, *thing.chinese, *thing.english] for thing in things]


def build_tokenizer(things: list[Thing]) -> PreTrainedTokenizerFast:
    """Cuts a prompt at the words it knows, the longest first: Latin ones as whole words, Chinese ones anywhere."""
    words = [word for group in vocabulary(things) for word in group]
    longest = sorted(words, key=lambda word: (-len(word), word))
    latin = "|".join(re.escape(word).replace("\\ ", " ").replace("\\-", "-") for word in longest if word.isascii())
    other = "|".join(word for word in longest if not word.isascii())
    tokens = {token: index for index, token in enumerate(SPECIALS + words)}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token=SPECIALS[UNK]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace("\ufe0f", ""),  # asks for an emoji in colour, which is the only way it is drawn here
            normalizers.Replace(Regex(r"\s+"), " "),
        ]
    )
    known = rf"(?<![a-z0-9])(?:{latin})(?![a-z0-9])|{other}"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(known), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        model_max_length=PROMPT,
        model_input_names=["input_ids", "attention_mask"],
    )
