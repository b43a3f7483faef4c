"""Which requests are traced: asked once for each, and the same for all that is done for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

_EMPTY = Context()

with suppress_instrumentation():
    _SUPPRESSED = get_current()  # made once: it takes longer than all the rest of what is not sampled

_SAMPLED: ContextVar[bool] = ContextVar("sampled", default=False)


class Sampling:
    """Asks the sampler that the SDK's variables name."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._ids = RandomIdGenerator()
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def of(cls, provider: TracerProvider) -> Self:
        """With the provider's sampler, in whose place comes one that does as was decided."""
        sampling = cls(provider.sampler)
        provider.sampler = _AsDecided()
        return sampling

    @property
    def sampled(self) -> bool:
        """What was decided for what is done now. What belongs to no request is not sampled."""
        return _SAMPLED.get()

    @contextmanager
    def decided(self, headers: Mapping[str, str]) -> Iterator[bool]:
        """Within, all is traced or nothing: as the sampler says of a request with these headers, names in lower
        case."""
        sampled = self._ask(headers)
        token = _SAMPLED.set(sampled)
        try:
            if sampled:
                yield True
            else:
                suppressed = attach(_SUPPRESSED)
                try:
                    yield False
                finally:
                    detach(suppressed)
        finally:
            _SAMPLED.reset(token)

    def _ask(self, headers: Mapping[str, str]) -> bool:
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        context = self._propagator.extract(carrier) if carrier else _EMPTY
        result = self._sampler.should_sample(context, self._ids.generate_trace_id(), "request", SpanKind.SERVER)
        return result.decision is Decision.RECORD_AND_SAMPLE


class _AsDecided(Sampler):
    """Samples what belongs to a sampled request."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        decision = Decision.RECORD_AND_SAMPLE if _SAMPLED.get() else Decision.DROP
        state = get_current_span(parent_context).get_span_context().trace_state
        return SamplingResult(decision, attributes, state)

    def get_description(self) -> str:
        return "as decided for the request"
