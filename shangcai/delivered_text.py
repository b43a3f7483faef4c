"""What a stream has given of a text."""

from __future__ import annotations

from collections import defaultdict

from contract import ProblemError, ReasoningEvent, StatusEvent, TokenEvent, ToolCallEvent, problems
from contract.texts.logprobs import TokenLogprob
from shangcai.results import Event, TextResult

_REASONING, _TEXT = -2, -1  # the numbers of the calls begin at 0


class DeliveredText:
    """A job that is begun again, because the server that ran it has died, writes its text once more: that is compared
    with what was given, and only the rest is passed on."""

    def __init__(self) -> None:
        self._given: defaultdict[int, str] = defaultdict(str)
        self._written: defaultdict[int, int] = defaultdict(int)
        """Characters of each that the present attempt has written."""
        self._tokens = self._tokens_written = 0
        """Those with log probabilities."""

    def new(self, event: Event) -> Event | None:
        """What is not given yet of the event. Raises DIVERGED where the text goes another way than before."""
        match event:
            case StatusEvent(state="queued"):
                self._written.clear()
                self._tokens_written = 0
            case ReasoningEvent():
                text = self._rest(_REASONING, event.text)
                return event.model_copy(update={"text": text}) if text else None
            case TokenEvent():
                text, logprobs = self._rest(_TEXT, event.text), self._rest_of_tokens(event.logprobs or [])
                return (
                    event.model_copy(update={"text": text, "logprobs": logprobs or None}) if text or logprobs else None
                )
            case ToolCallEvent():
                text = event.arguments if event.name is None else f"{event.name}\n{event.arguments}"
                rest = self._rest(event.index, text)
                if rest != text:
                    return ToolCallEvent(index=event.index, arguments=rest) if rest else None
            case TextResult():
                if not event.text.startswith(self._given[_TEXT]):
                    raise _diverged()
                if not (event.reasoning_content or "").startswith(self._given[_REASONING]):
                    raise _diverged()
        return event

    def _rest(self, place: int, text: str) -> str:
        begin = self._written[place]
        known = self._given[place][begin : begin + len(text)]
        if not text.startswith(known):
            raise _diverged()
        self._written[place] += len(text)
        self._given[place] += text[len(known) :]
        return text[len(known) :]

    def _rest_of_tokens(self, logprobs: list[TokenLogprob]) -> list[TokenLogprob]:
        """They are counted: each attempt has the same tokens, whose numbers may round otherwise."""
        known = max(0, self._tokens - self._tokens_written)
        self._tokens_written += len(logprobs)
        self._tokens = max(self._tokens, self._tokens_written)
        return logprobs[known:]


def _diverged() -> ProblemError:
    detail = "The generation was broken off and begun again, and does not begin as it did before."
    return ProblemError(problems.DIVERGED, detail)
