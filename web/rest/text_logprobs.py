"""The log probabilities of a completion stream: the members that web reads, of chats and of plain completions."""

from __future__ import annotations

import re

from pydantic import BaseModel, FiniteFloat

from contract.texts.logprobs import LikelyToken, TokenLogprob


class _Likely(BaseModel):
    token: str
    logprob: FiniteFloat
    bytes: list[int] | None = None

    @property
    def likely(self) -> LikelyToken:
        return _likely(self.token, self.logprob, self.bytes)


class _Token(_Likely):
    top_logprobs: list[_Likely] | None = None

    @property
    def whole(self) -> TokenLogprob:
        others = [other.likely for other in self.top_logprobs or ()]
        return TokenLogprob(**self.likely.model_dump(), top_logprobs=others)


class ChoiceLogprobs(BaseModel):
    """`content` is of chats, the lists are of plain completions."""

    content: list[_Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[FiniteFloat | None] | None = None
    top_logprobs: list[dict[str, FiniteFloat] | None] | None = None

    @property
    def told(self) -> list[TokenLogprob] | None:
        """As the contract has them; None where the chunk has none."""
        if self.content is not None:
            return [one.whole for one in self.content]
        if self.tokens is None:
            return None
        logprobs = self.token_logprobs or []
        others: list[dict[str, float] | None] = [*(self.top_logprobs or ())]
        others += [None] * (len(logprobs) - len(others))
        # Only the first token of an echoed prompt has none, which is not asked for.
        return [
            TokenLogprob(**_likely(token, logprob or 0.0).model_dump(), top_logprobs=_sorted(other or {}))
            for token, logprob, other in zip(self.tokens, logprobs, others, strict=False)
        ]


def _sorted(others: dict[str, float]) -> list[LikelyToken]:
    likely = [_likely(token, logprob) for token, logprob in others.items()]
    return sorted(likely, key=lambda one: -one.logprob)


def _likely(token: str, logprob: float, bytes: list[int] | None = None) -> LikelyToken:
    return LikelyToken(token=token, logprob=logprob, bytes=list(_bytes_of(token)) if bytes is None else bytes)


_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
"""A byte that is no character, as OpenAI writes it in the name of a token."""


def _bytes_of(token: str) -> bytes:
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), token.encode())
