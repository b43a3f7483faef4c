"""Structures that texts are held to, compiled for one model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from contract import problems
from contract.problems import ProblemError, invalid_field
from predictor.engine.base import shutting_down
from predictor.engine.tasks import JsonSchema, Lark, Structure
from predictor.text.checkpoint import Checkpoint
from predictor.text.output.reasoning import ReasoningTags
from predictor.text.structure.constraint import StructureConstraint
from predictor.text.structure.grammar import grammar
from predictor.text.structure.refusals import refusal
from predictor.text.structure.vocabulary import vocabulary

if TYPE_CHECKING:  # it is imported with the first structure: most predictors never need it
    from llguidance import LLMatcher, LLTokenizer

log = logging.getLogger(__name__)

THREADS = 2
"""How many structures are compiled at once."""

COMPILING = 256
"""Most different structures that are compiled or wait for a thread; one more is refused."""

COMPILE_SECONDS = 10.0
"""Longest that a request waits for its structure. One that takes so long is refused for good; where the threads were
busy with others, the client is to come again."""

OWN_PART = 0.5
"""Of that time, from which on it is the structure's own fault."""

KEPT = 64
"""Compiled structures that are kept for the next request, those that were used last: up to a few MiB of each."""

MULTIPLES = 10_000
"""Highest least common multiple of all `multipleOf` of a schema: llguidance has a state for each remainder. With 10,000
it takes 30 ms, and with a million 10 s and 500 MB."""

LEXER_STATES = 50_000
"""Of one text at most, of 1 to 2 kB each. A text that needs more ends with a problem."""

TRIAL_TOKENS = 8
"""Of a text that is tried: many structures show only there that they are too complex."""

LIMITS: dict[str, Any] = {"max_lexer_states": LEXER_STATES, "verbose_errors": False}
"""llguidance's LLParserLimits, whose defaults bound the rest: the size of grammars, and the work of each mask."""


@dataclass(frozen=True, slots=True)
class CompiledStructure:
    """For any number of texts."""

    matcher: LLMatcher
    field: str

    def begin(self) -> StructureConstraint:
        """For one text."""
        return StructureConstraint(self.matcher.deep_copy(), self.field)


class StructureCompiler:
    """Compiles on threads of its own, and keeps what was used last."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._threads = ThreadPoolExecutor(THREADS, "structure")
        self._loading = threading.Lock()
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()
        self._compiling: dict[str, Future[LLMatcher]] = {}
        self._begun: dict[str, float] = {}  # of those that have a thread

    async def compile(self, structure: Structure, reasoning: ReasoningTags | None) -> CompiledStructure:
        """For a text that may reason between those tags first. Raises a ProblemError where the structure is none that
        this model's texts can be held to, or there are too many at once."""
        for field, schema in _schemas(structure):
            if obstacle := _obstacle(schema):
                raise invalid_field(field, obstacle)
        text = grammar(structure, reasoning)
        matcher = self._kept.get(text)
        if matcher is None:
            try:
                matcher = await self._compiled(text, structure.field)
            except _UnusableError as error:
                raise invalid_field(_field(structure, text, str(error)), refusal(str(error))) from None
        self._keep(text, matcher)
        return CompiledStructure(matcher, structure.field)

    def _keep(self, text: str, matcher: LLMatcher) -> None:
        self._kept[text] = matcher
        self._kept.move_to_end(text)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    async def _compiled(self, text: str, field: str) -> LLMatcher:
        """Once for all that ask for it meanwhile. Raises an _UnusableError, too."""
        work = self._compiling.get(text)
        if work is None:
            if len(self._compiling) >= COMPILING:
                detail = "Too many different structures are being compiled."
                raise ProblemError(problems.OVERLOADED, detail, retry_after=1)
            try:
                work = self._compiling[text] = self._threads.submit(self._compile, text)
            except RuntimeError:  # no futures after a shutdown
                raise shutting_down() from None
            loop = asyncio.get_running_loop()
            work.add_done_callback(lambda done: _call_soon(loop, self._finished, text, done))
        try:
            # Shielded: others may wait for it, too.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(work)), COMPILE_SECONDS)
        except TimeoutError:
            begun = self._begun.get(text, math.inf)
            if time.monotonic() - begun < COMPILE_SECONDS * OWN_PART:
                detail = "The structures of other requests are being compiled."
                raise ProblemError(problems.OVERLOADED, detail, retry_after=COMPILE_SECONDS) from None
            raise invalid_field(field, f"takes more than {COMPILE_SECONDS:g} s to compile: make it simpler") from None

    def _finished(self, text: str, work: Future[LLMatcher]) -> None:
        """Kept, even if nobody has waited for it to the end: whoever was told to comes again."""
        self._compiling.pop(text, None)
        self._begun.pop(text, None)
        if not work.cancelled() and work.exception() is None:
            self._keep(text, work.result())

    def _compile(self, text: str) -> LLMatcher:
        self._begun[text] = time.monotonic()
        return self.compile_grammar(text)

    def compile_grammar(self, text: str) -> LLMatcher:
        """On a thread of its own."""
        from llguidance import LLMatcher, LLParserLimits

        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=LLParserLimits(**LIMITS))
        trial, tokens = matcher.deep_copy(), 0
        while tokens < TRIAL_TOKENS and not trial.is_stopped():
            allowed = int.from_bytes(trial.compute_bitmask(), "little")
            if not trial.is_error() and trial.consume_token((allowed & -allowed).bit_length() - 1):
                tokens += 1
        error = trial.get_error()
        if error and not (tokens and "NoExtension" in error):  # other texts may go on where this one does not
            raise _UnusableError(error)
        return matcher

    @property
    def _tokenizer(self) -> LLTokenizer:
        with self._loading:
            return self._loaded_tokenizer

    @cached_property
    def _loaded_tokenizer(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        checkpoint = self._checkpoint
        size = checkpoint.model.config.get_text_config().vocab_size
        known = vocabulary(checkpoint.tokenizer.backend_tokenizer, checkpoint.end_tokens, size)
        wrapper: Any = _TokenizerWrapper(known.tokens, known.ends[0])
        return LLTokenizer(wrapper, eos_token=known.ends)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _UnusableError(Exception):
    """What llguidance says of a structure that it does not take."""


class _TokenizerWrapper:
    """What llguidance asks of a tokenizer that it does not know."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()  # their bytes say that they are special

    def __init__(self, tokens: list[bytes], end: int) -> None:
        self.tokens = tokens
        self.eos_token_id = end

    def __call__(self, text: bytes) -> list[int]:
        raise NotImplementedError("grammars are compiled with no_forcing, which needs no tokens of a text")


def _call_soon(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and with it every client
        loop.call_soon_threadsafe(*call)


def _schemas(structure: Structure) -> list[tuple[str, Mapping[str, Any]]]:
    """Those of clients, by what they call them."""
    match structure.form:
        case JsonSchema(schema):
            return [(structure.field, schema)]
        case Lark(schemas=schemas):
            return [(one.field, one.schema) for one in schemas]
    return []


def _field(structure: Structure, text: str, error: str) -> str:
    """What the client calls the mistake: the schema on whose line llguidance found it, if it names a line, or all."""
    place = re.match(r"at (\d+)\(", error)
    if place is not None and isinstance(structure.form, Lark):
        line = text.split("\n")[int(place[1]) - 1]
        for one in structure.form.schemas:
            if line.startswith(f"{one.rule}:"):
                return one.field
    return structure.field


def _obstacle(schema: Mapping[str, Any]) -> str | None:
    """Why a schema is not compiled at all."""
    multiple = 1
    for digits in _multiples(schema):
        multiple = math.lcm(multiple, digits)
        if multiple > MULTIPLES:
            return f"has values of multipleOf whose least common multiple has over {MULTIPLES:,} remainders"
    return None


def _multiples(schema: Any) -> Iterator[int]:
    """The values of multipleOf anywhere in a schema, each by its digits: 25 for 0.25."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            value = part.get("multipleOf")
            if isinstance(value, int) and value:
                yield abs(value)
            elif isinstance(value, float) and value and math.isfinite(value):
                yield int("".join(map(str, Decimal(repr(value)).as_tuple().digits)))
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
