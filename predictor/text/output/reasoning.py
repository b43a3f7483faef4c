"""What a model writes before its answer: its reasoning, between two tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from predictor.text.output.stop_sequences import overlap

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

REASONING_TAGS = (
    ("<think>", "</think>"),  # Qwen's, DeepSeek's, GLM's and most others'
    ("<|channel>thought", "<channel|>"),  # Gemma's since 4, which may open and close it though it is not to think
    ("[THINK]", "[/THINK]"),  # Mistral's
    ("<seed:think>", "</seed:think>"),  # Seed-OSS's
)


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """Between which a model writes its reasoning. `begun`: the prompt ends with the first one. `hidden` are the special
    tokens in them, by their ids: decoding leaves them out."""

    first: str
    last: str
    begun: bool = False
    hidden: Mapping[int, str] = field(default_factory=dict)


def reasoning_tags(tokenizer: PreTrainedTokenizerFast, prompt: str) -> ReasoningTags | None:
    """The tags of a model that reasons, by its chat template or its vocabulary; None of another model, which may write
    about such tags. `prompt` is what the answer follows, as the template has written it."""
    template, backend = str(tokenizer.chat_template or ""), tokenizer.backend_tokenizer
    for first, last in REASONING_TAGS:
        if last in template or backend.token_to_id(last) is not None:
            begun = prompt.rstrip().endswith(first)
            return ReasoningTags(first, last, begun=begun, hidden=hidden_tokens(backend, first + last))
    return None


def hidden_tokens(tokenizer: Tokenizer, text: str) -> dict[int, str]:
    """The special tokens in a text, by their ids."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    tokens = {number: tokenizer.id_to_token(number) or "" for number in ids if not tokenizer.decode([number])}
    # A token for a space alone decodes to nothing, too, and stands in no tag.
    return {number: token for number, token in tokens.items() if token and token in text}


class ReasoningSplitter:
    """Tells the reasoning at the beginning of a text from the answer after it. White space around the reasoning belongs
    to neither.

    Text that may be the beginning of a tag is held back until the next piece decides.
    """

    def __init__(self, tags: ReasoningTags) -> None:
        self._tags = tags
        self._state = "reasoning" if tags.begun else "beginning"
        self._held = ""
        self._reasoned = False

    def push(self, piece: str) -> tuple[str, str]:
        """Take the next piece; the reasoning and the text of the answer that are certain with it."""
        if self._state == "answer":
            return "", piece
        text, self._held = self._held + piece, ""
        reasoning = ""
        if self._state == "beginning":
            begun = text.lstrip()
            if self._tags.first.startswith(begun) and begun != self._tags.first:
                self._held = text
                return "", ""
            if not begun.startswith(self._tags.first):
                self._state = "answer"
                return "", text
            self._state = "reasoning"
            text = begun.removeprefix(self._tags.first)
        if self._state == "reasoning":
            reasoning, tag, answer = text.partition(self._tags.last)
            if not tag:
                certain = text[: len(text) - overlap(text, self._tags.last)].rstrip()
                self._held = text[len(certain) :]
                return self._without_margin(certain), ""
            self._state = "ended"
            reasoning, text = self._without_margin(reasoning.rstrip()), answer
        text = text.lstrip()
        if text:
            self._state = "answer"
        return reasoning, text

    @property
    def reasons(self) -> bool:
        """Whether the reasoning goes on, or has ended with nothing of the answer after it yet."""
        return self._state in ("reasoning", "ended")

    def flush(self) -> tuple[str, str]:
        """The reasoning and the text that were held back, when no piece follows."""
        held, self._held = self._held, ""
        if self._state == "reasoning":
            return self._without_margin(held.rstrip()), ""
        return "", held

    def _without_margin(self, reasoning: str) -> str:
        if not self._reasoned:
            reasoning = reasoning.lstrip()
            self._reasoned = bool(reasoning)
        return reasoning
