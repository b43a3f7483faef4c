"""From the token ids of one `generate` call to Token events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from predictor.engine import Finished, Token
from predictor.jobs import Job
from predictor.stop_sequences import StopScanner

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class TextDecoder:
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


class Writer:
    """Streamer and stopping criterion of one `generate` call.

    `generate` calls `put` with the prompt first and then with each token, and the instance itself after each token to
    learn whether to stop.
    """

    def __init__(self, job: Job, config: GenerationConfig, tokenizer: Tokenizer, beat: Callable[[], None]) -> None:
        self._job = job
        self._beat = beat
        eos = config.eos_token_id
        self._eos = {eos} if isinstance(eos, int) else set(eos or ())
        self._decoder = TextDecoder(tokenizer)
        self._scanner = StopScanner(job.sampling.stop or ())
        self._ended = False
        self._count = -1  # the prompt comes first

    def put(self, ids: torch.Tensor) -> None:
        self._beat()
        self._count += 1
        if self._count == 0:
            return
        token = int(ids[0])
        if token in self._eos:
            self._ended = True
        else:
            self._publish(self._scanner.push(self._decoder.push(token)))

    def end(self) -> None:
        """Called by `generate` at the end."""

    def __call__(self, ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        stop = self._scanner.stopped or self._job.generation.closed
        return ids.new_full((ids.shape[0],), stop, dtype=bool)

    def finish(self) -> Finished:
        if not self._scanner.stopped:
            self._publish(self._scanner.push(self._decoder.flush()))
            self._publish(self._scanner.flush())
        complete = self._ended or self._scanner.stopped
        return Finished("stop" if complete else "length", len(self._job.prompt), self._count)

    def _publish(self, text: str) -> None:
        if text:
            self._job.generation.publish(Token(text))
