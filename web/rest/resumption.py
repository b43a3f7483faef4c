"""A generation whose model server died is asked for again, with the same seed, and goes on where the client is."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict

from contract import (
    LiveEvent,
    PreviewEvent,
    ProblemError,
    ProgressEvent,
    ReasoningEvent,
    ResultEvent,
    TokenEvent,
    ToolCallEvent,
    problems,
)
from contract.texts.logprobs import TokenLogprob
from web.client.failures import ServerGoneError

log = logging.getLogger(__name__)

MOST_BREAKS = 4
"""Most answers to one request that may break off once they run: what kills its server each time is the request."""

MOST_REFUSALS = 9
"""Most attempts in a row that may end before the generation runs."""

JOB_BREAKS, JOB_REFUSALS = 1, 3
"""The same of a job: its worker tries it again, too, counts, and keeps no place for it between two attempts."""

PAUSE_SECONDS = 0.25
"""Before the request is made again; twice as long after each refusal."""

MOST_PAUSE_SECONDS = 4.0


class Attempts:
    """How often one request was made, and whether it may be made again; `seconds` from now on it may not."""

    def __init__(self, seconds: float, *, of_job: bool = False) -> None:
        self._most_breaks = JOB_BREAKS if of_job else MOST_BREAKS
        self._most_refusals = JOB_REFUSALS if of_job else MOST_REFUSALS
        self._now = asyncio.get_running_loop().time
        self._deadline = self._now() + seconds
        self._breaks = 0
        self._refusals = 0
        self._runs = False

    @property
    def seconds(self) -> float:
        """That are left; negative after the deadline."""
        return self._deadline - self._now()

    @property
    def resumed(self) -> bool | None:
        """Whether an earlier attempt ran; as StatusEvent has it."""
        return True if self._breaks else None

    def runs(self) -> None:
        """The generation of this attempt has begun to run."""
        self._runs, self._refusals = True, 0

    def pause(self, error: ServerGoneError) -> float:
        """Seconds to wait before the next attempt; raises `error`, which has ended this one, where there is none."""
        if self._runs:
            self._breaks += 1
        self._refusals += 1
        self._runs = False
        longest: float = min(PAUSE_SECONDS * 2 ** (self._refusals - 1), MOST_PAUSE_SECONDS)
        # Or all requests to a server that has died would come back at once.
        pause = longest * (0.5 + secrets.randbelow(1_000) / 2_000)
        if self._breaks > self._most_breaks or self._refusals >= self._most_refusals or pause >= self.seconds:
            raise error
        return pause


class Delivered:
    """What the client has of one generation: a further answer must repeat it, and only the rest is passed on.

    A text is compared, however its pieces are cut. Pictures are all of the last answer: steps and previews that were
    told are not told again. `live` is false where the client gets nothing before the end, so that nothing binds.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._texts: defaultdict[int, str] = defaultdict(str)  # by their places, see _place
        self._fresh: defaultdict[int, list[str]] = defaultdict(list)  # of this answer
        self._repeated: defaultdict[int, int] = defaultdict(int)  # characters of _texts
        self._logprobs = TokenCount()
        self._step = 0
        self._previews: set[tuple[int, int]] = set()
        self._any = False
        self._bound_to: str | None = None
        """What must have decided each further answer."""

    def again(self, error: ServerGoneError, fingerprint: str | None) -> None:
        """A further answer comes. Raises `error`, which has ended the last one, where none can go on from here.
        `fingerprint`: what has decided the last one, if it has said so. vLLM says it at the end."""
        if self._any:
            self._bound_to = self._bound_to or fingerprint
            if self._bound_to is None:
                raise error
        for place, pieces in self._fresh.items():
            self._texts[place] += "".join(pieces)
        self._fresh.clear()
        self._repeated.clear()
        self._logprobs.again()

    def new(self, event: LiveEvent, fingerprint: str | None) -> LiveEvent | None:
        """What the client does not have of the event of an answer that this has decided. Raises DIVERGED where the
        answer is another one than that which the client has the beginning of."""
        if not self._live:
            return event
        new: LiveEvent | None = event
        match event:
            case ReasoningEvent() | TokenEvent() | ToolCallEvent():
                new = self._new_text(event)
            case ProgressEvent():
                new = event if event.step > self._step else None
                self._step = max(self._step, event.step)
            case PreviewEvent():
                new = self._new_preview(event)
            case ResultEvent() if any(self._left(place) for place in list(self._texts)):
                raise _diverged()
        unknown = fingerprint is None and new is None  # as long as it repeats, it may say so later
        if self._bound_to is not None and fingerprint != self._bound_to and not unknown:
            log.warning("system_fingerprint was %s and is %s", self._bound_to, fingerprint)
            raise _diverged()
        self._any = True
        return new

    def _new_text(self, event: ReasoningEvent | TokenEvent | ToolCallEvent) -> LiveEvent | None:
        place, text = _place(event), _text(event)
        begin = self._repeated[place]
        known = self._texts[place][begin : begin + len(text)]
        new = text[len(known) :]
        if text[: len(known)] != known or (new and self._out_of_order(place)):
            raise _diverged()
        self._repeated[place] += len(known)
        logprobs = self._logprobs.new(event.logprobs) if isinstance(event, TokenEvent) else None
        if not new and not logprobs:
            return None
        self._fresh[place].append(new)
        if isinstance(event, ToolCallEvent):
            return ToolCallEvent(index=event.index, arguments=new) if known else event
        return event.model_copy(update={"text": new, "logprobs": logprobs} if logprobs is not None else {"text": new})

    def _left(self, place: int) -> int:
        """Characters that this answer has not repeated."""
        return len(self._texts[place]) - self._repeated[place]

    def _out_of_order(self, place: int) -> bool:
        """One text ends before the next begins."""
        others = list(self._texts)
        return any(self._left(other) for other in others if other < place) or any(
            self._texts[other] for other in others if other > place
        )

    def _new_preview(self, event: PreviewEvent) -> LiveEvent | None:
        if event.step is None:
            return event
        key = (event.image, event.step)
        new = key not in self._previews
        self._previews.add(key)
        return event if new else None


class TokenCount:
    """Of a text's tokens, those that the client knows the log probabilities of. All answers have the same tokens in the
    same order, so they are counted and not compared: numbers may round otherwise, and pieces be cut otherwise."""

    def __init__(self) -> None:
        self._told = 0
        self._repeated = 0  # how many this answer had so far

    def again(self) -> None:
        """A further answer begins."""
        self._repeated = 0

    def new(self, logprobs: list[TokenLogprob] | None) -> list[TokenLogprob] | None:
        """What the client does not have of those of the next piece; None where there are none."""
        if logprobs is None:
            return None
        known = min(self._told - self._repeated, len(logprobs))
        self._told += len(logprobs) - known
        self._repeated += len(logprobs)
        return logprobs[known:]


def _place(event: ReasoningEvent | TokenEvent | ToolCallEvent) -> int:
    """Of the text that this is a piece of, among those of an answer: reasoning, words, and each call."""
    match event:
        case ReasoningEvent():
            return 0
        case TokenEvent():
            return 1
        case _:
            return 2 + event.index


def _text(event: ReasoningEvent | TokenEvent | ToolCallEvent) -> str:
    """A call as a text is its name, a line feed, and its arguments; its id is that of the first answer."""
    if not isinstance(event, ToolCallEvent):
        return event.text
    return event.arguments if event.name is None else f"{event.name}\n{event.arguments}"


def _diverged() -> ProblemError:
    return ProblemError(
        problems.DIVERGED,
        "The model server died in the middle, and another answer to the same request does not begin as this one did.",
    )
