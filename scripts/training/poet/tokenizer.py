"""The poet's tokenizer: one token for each character, for each line end and for each mark of a header."""

# ruff: noqa: S106 - "token" is a piece of text here

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scripts.training.poet.corpus import FORMS

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>", "<词>", "<题>", *(f"<{form}>" for form in FORMS.values())]
PAD, UNK, BOS, EOS, WORD, TITLE = range(6)
COMMA_LINE, STOP_LINE, STOP = "，\n", "。\n", "。"


def build_tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    """One token per character; punctuation variants in prompts become the verse's own line ends."""
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[,，;；、]\s*"), COMMA_LINE),
            normalizers.Replace(Regex(r"[.。!！?？]\s*"), STOP_LINE),
            normalizers.Replace(Regex(r"(?<![，。])\s+"), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[，。]\n|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=SPECIALS[4:],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
    )
