"""From the token ids of one text to its events."""

from __future__ import annotations

from collections.abc import Callable, Set

from tokenizers import Tokenizer

from contract.result import FinishReason
from contract.texts.logprobs import LikelyToken, TokenLogprob
from predictor.engine.events import Reasoning, TextFinished, Token, ToolCallPiece
from predictor.engine.generation import Generation
from predictor.text.output.aligned_tokens import AlignedTokens
from predictor.text.output.reasoning import ReasoningSplitter, ReasoningTags
from predictor.text.output.stop_sequences import StopScanner
from predictor.text.output.token_bytes import TokenBytes
from predictor.text.output.tool_calls import ToolCallSplitter
from predictor.text.sampling.log_probabilities import TokenLikelihood

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class IncrementalDetokenizer:
    """Token ids in, pieces of text out. The pieces joined are what all the ids decode to.

    A character may span several tokens: it is held back until it is whole, and left out if it never is.
    """

    _LONGEST_HELD = 16
    """Tokens that are held back at most: no character has that many bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # The ids that the last piece came from. They are decoded again with the next ones, because they decide whether
        # those begin with a space.
        self._begin = self._end = 0

    def push(self, token: int) -> str:
        """The text that is whole with this token; it may be empty."""
        self._ids.append(token)
        text = self._decode_pending()
        held = len(self._ids) - self._end
        if held < self._LONGEST_HELD and (not text or text.endswith(_UNDECODABLE)):
            return ""
        self._begin, self._end = self._end, len(self._ids)
        return text

    def flush(self) -> str:
        """The text held back, when no token follows."""
        return self._decode_pending().rstrip(_UNDECODABLE)

    def _decode_pending(self) -> str:
        before = self._decode(self._ids[self._begin : self._end])
        return self._decode(self._ids[self._begin :])[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


class TextOutput:
    """Publishes a text while it is written, and decides when it ends: at an `eos` token, a stop sequence or
    `max_tokens`, after the calls of functions, or where `is_complete` says that nothing may follow. `reasoning` are the
    tags of a model that may reason first, `calls` tells the calls that may come last; stop sequences apply to the words
    between the two. `token_bytes` are there where log probabilities are told."""

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        *,
        prompt_tokens: int,
        max_tokens: int,
        eos: Set[int],
        stops: list[str],
        reasoning: ReasoningTags | None = None,
        is_complete: Callable[[], bool] = lambda: False,
        token_bytes: TokenBytes | None = None,
        calls: ToolCallSplitter | None = None,
    ) -> None:
        self.generation = generation
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._splitter = ReasoningSplitter(reasoning) if reasoning else None
        self._calls = calls
        self._hidden_tags = {**(reasoning.hidden if reasoning else {}), **(calls.hidden if calls else {})}
        self._stop_scanner = StopScanner(stops)
        self._token_bytes = token_bytes
        self._aligned: AlignedTokens[TokenLogprob] | None = None if token_bytes is None else AlignedTokens()
        self._likelihood: TokenLikelihood | None = None  # of the next token
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._eos = eos
        self._eos_seen = False
        self._is_complete = is_complete
        self._count = 0
        self._reused = 0

    def note_reuse(self, tokens: int) -> None:
        """So many tokens of the prompt were in the cache already."""
        self._reused = max(self._reused, tokens)

    def note_likelihood(self, likelihood: TokenLikelihood) -> None:
        """Of the next token."""
        self._likelihood = likelihood

    def is_last(self, token: int) -> bool:
        """Whether the next token is the last, whatever its text."""
        return token in self._eos or self._count + 1 >= self._max_tokens or self._is_complete()

    def put(self, token: int) -> bool:
        """Take the next token; whether it is the last."""
        self._count += 1
        if token in self._eos:
            self._eos_seen = True
        else:
            self._align(token)
            self._take(self._detokenizer.push(token) + self._hidden_tags.get(token, ""))
        return self._complete or self._count >= self._max_tokens

    def finish(self) -> TextFinished:
        """Publish the text held back; the end of the text."""
        if not self._stop_scanner.stopped:
            self._take(self._detokenizer.flush())
            if self._splitter:
                self._take_apart(self._splitter.flush())
            for part in self._calls.flush() if self._calls else ():
                self._take_part(part)
            self._publish(self._stop_scanner.flush())
            self._publish_rest()
        called: FinishReason = "tool_calls" if self._calls and self._calls.called else "stop"
        reused = min(self._reused, self._prompt_tokens)  # a text that was taken out goes on with its own tokens
        return TextFinished(called if self._complete else "length", self._prompt_tokens, self._count, reused)

    @property
    def _complete(self) -> bool:
        called = self._calls is not None and self._calls.ended
        return self._eos_seen or self._stop_scanner.stopped or called or self._is_complete()

    def _align(self, token: int) -> None:
        likelihood, self._likelihood = self._likelihood, None
        if likelihood is not None and self._token_bytes is not None and self._aligned is not None:
            self._aligned.add(token_logprob(token, likelihood, self._token_bytes, first=self._count == 1))

    def _take(self, piece: str) -> None:
        if self._aligned is not None:
            self._aligned.decode(len(piece))
        self._take_apart(self._splitter.push(piece) if self._splitter else ("", piece))

    def _take_apart(self, pieces: tuple[str, str]) -> None:
        reasoning, answer = pieces
        if reasoning:
            self.generation.publish(Reasoning(reasoning))
        if self._aligned is not None:
            self._aligned.answer(len(answer))
        for part in self._calls.push(answer) if self._calls else (answer,):
            self._take_part(part)

    def _take_part(self, part: str | ToolCallPiece) -> None:
        if self._stop_scanner.stopped:
            return
        if isinstance(part, str):
            self._publish(self._stop_scanner.push(part))
        else:
            self._publish(self._stop_scanner.flush())
            self.generation.publish(part)

    def _publish(self, text: str) -> None:
        if text:
            logprobs = None if self._aligned is None else tuple(self._aligned.publish(len(text)))
            self.generation.publish(Token(text, logprobs))

    def _publish_rest(self) -> None:
        called = self._calls is not None and self._calls.called
        if self._aligned is None or called or (self._splitter is not None and self._splitter.reasons):
            return
        if rest := self._aligned.rest():
            self.generation.publish(Token("", tuple(rest)))


def token_logprob(token: int, likelihood: TokenLikelihood, token_bytes: TokenBytes, *, first: bool) -> TokenLogprob:
    """As clients get it. `first`: whether the text begins with it."""

    def likely(id: int, logprob: float) -> LikelyToken:
        name, value = token_bytes.name(id, first=first), token_bytes.of(id, first=first)
        return LikelyToken(token=name, logprob=logprob, bytes=list(value))

    chosen = likely(token, likelihood.logprob)
    others = [likely(id, logprob) for id, logprob in likelihood.likeliest]
    return TokenLogprob(token=chosen.token, logprob=chosen.logprob, bytes=chosen.bytes, top_logprobs=others)
