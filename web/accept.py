"""Which form of the answer a client wants (RFC 9110, 12.5.1)."""

from __future__ import annotations

from starlette.datastructures import Headers

from contract import ProblemError, problems

JSON = "application/json"
SSE = "text/event-stream"
_OFFERS = (JSON, SSE)  # by preference


def accepted_form(headers: Headers) -> str:
    """JSON or SSE, whichever the Accept header weighs more; a NOT_ACCEPTABLE problem when it takes neither."""
    ranges = [_weighed(part) for part in ",".join(headers.getlist("accept")).split(",") if part.strip()]
    if not ranges:
        return JSON
    weights = {offer: _weight(offer, ranges) for offer in _OFFERS}
    best = max(_OFFERS, key=lambda offer: weights[offer])
    if weights[best] == 0:
        raise ProblemError(problems.NOT_ACCEPTABLE, f"A text is served as {' or '.join(_OFFERS)}.")
    return best


def _weight(offer: str, ranges: list[tuple[str, float]]) -> float:
    """That of the most specific range which covers the offer."""
    for covering in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        weights = [weight for name, weight in ranges if name == covering]
        if weights:
            return max(weights)
    return 0


def _weighed(media_range: str) -> tuple[str, float]:
    name, *parameters = media_range.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    weight = next((text for key, _, text in pairs if key.strip().lower() == "q"), "1")
    try:
        return name.strip().lower(), min(max(float(weight), 0), 1)
    except ValueError:
        return name.strip().lower(), 0
