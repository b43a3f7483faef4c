"""From the token ids of one text to its Token events."""

from __future__ import annotations

from tokenizers import Tokenizer

from predictor.engine.events import TextFinished, Token
from predictor.engine.generation import Generation
from predictor.text.stop_sequences import StopScanner

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class IncrementalDetokenizer:
    """Token ids in, pieces of text out; the pieces joined are what the ids decode to together.

    A character may be spread over several tokens: it is held back until it is whole. One that is still incomplete at
    the end is left out.
    """

    _LONGEST_HELD = 16  # tokens; no character has that many bytes, so these are none

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._begin = self._end = 0  # of the ids that the last piece came from; they decide about a leading space

    def push(self, token: int) -> str:
        self._ids.append(token)
        text = self._upcoming()
        held = len(self._ids) - self._end
        if held < self._LONGEST_HELD and (not text or text.endswith(_UNDECODABLE)):
            return ""
        self._begin, self._end = self._end, len(self._ids)
        return text

    def flush(self) -> str:
        return self._upcoming().rstrip(_UNDECODABLE)

    def _upcoming(self) -> str:
        before = self._decode(self._ids[self._begin : self._end])
        return self._decode(self._ids[self._begin :])[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


class TextOutput:
    """Publishes a text while it is written, and knows when it ends."""

    def __init__(
        self, generation: Generation, tokenizer: Tokenizer, *, prompt: int, most: int, eos: set[int], stops: list[str]
    ) -> None:
        self._generation = generation
        self._decoder = IncrementalDetokenizer(tokenizer)
        self._scanner = StopScanner(stops)
        self._prompt = prompt
        self._most = most
        self._eos = eos
        self._ended = False
        self._count = 0

    def put(self, token: int) -> bool:
        """Write one token; whether it was the last."""
        self._count += 1
        if token in self._eos:
            self._ended = True
        else:
            self._publish(self._scanner.push(self._decoder.push(token)))
        return self._ended or self._scanner.stopped or self._count >= self._most

    def finish(self) -> TextFinished:
        """Publish what was held back, and tell how it ended."""
        if not self._scanner.stopped:
            self._publish(self._scanner.push(self._decoder.flush()))
            self._publish(self._scanner.flush())
        complete = self._ended or self._scanner.stopped
        return TextFinished("stop" if complete else "length", self._prompt, self._count)

    def _publish(self, text: str) -> None:
        if text:
            self._generation.publish(Token(text))
