"""Which form of the answer a client wants (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

from starlette.datastructures import Headers

from contract import GenerationRequest, ProblemError, invalid_field, problems
from contract.fields import PictureFormat
from web.http.quality_values import weighted

JSON = "application/json"
SSE = "text/event-stream"
MULTIPART = "multipart/mixed"
FILE = "application/octet-stream"
IMAGES: dict[str, PictureFormat] = {f"image/{name}": name for name in get_args(PictureFormat)}

# By preference.
TEXT_FORMS = (JSON, SSE)
PICTURE_FORMS = (JSON, SSE, *IMAGES, MULTIPART)


def text_form(headers: Headers) -> str:
    """The form that the Accept header weighs most; a NOT_ACCEPTABLE problem when it takes none."""
    form = heaviest(headers, TEXT_FORMS)
    if form is None:
        raise ProblemError(problems.NOT_ACCEPTABLE, f"A text is served as {_either(TEXT_FORMS)}.")
    return form


def picture_form(headers: Headers, request: GenerationRequest) -> str:
    """As `text_form`, of the forms that fit the request; an INVALID_FIELD problem when only others are accepted."""
    form = heaviest(headers, [form for form in PICTURE_FORMS if _fits(form, request)])
    if form is not None:
        return form
    wanted = heaviest(headers, PICTURE_FORMS)
    if wanted is None:
        raise ProblemError(problems.NOT_ACCEPTABLE, f"A picture is served as {_either(PICTURE_FORMS)}.")
    if request.n not in (None, 1):
        instead = f"several pictures need Accept: {JSON} or {MULTIPART}"
        raise invalid_field("n", f"must be 1 where only {wanted} is accepted; {instead}")
    raise invalid_field("format", f"is {request.format}, and the Accept header takes {wanted} instead; leave one out")


def prefers_picture(headers: Headers) -> bool:
    """Whether the Accept header weighs a form that only pictures have more than the forms of texts; or takes none of
    these, but some other type of image."""
    form = heaviest(headers, PICTURE_FORMS)
    if form is None:
        return any(name.startswith("image/") and weight > 0 for name, weight in weighted(headers, "accept").items())
    return form not in TEXT_FORMS


def _fits(form: str, request: GenerationRequest) -> bool:
    return form not in IMAGES or (request.n in (None, 1) and request.format in (None, IMAGES[form]))


def heaviest(headers: Headers, offers: Collection[str]) -> str | None:
    """The offer that the Accept header weighs most, the first of several; None when it accepts none."""
    ranges = weighted(headers, "accept") or {"*/*": 1.0}
    weights = {offer: _weight(offer, ranges) for offer in offers}
    best = max(weights, key=lambda offer: weights[offer])
    return best if weights[best] > 0 else None


def _either(names: Collection[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


def _weight(offer: str, ranges: dict[str, float]) -> float:
    """The weight of the most specific range that covers the offer."""
    covering = (offer, f"{offer.partition('/')[0]}/*", "*/*")
    return next((ranges[name] for name in covering if name in ranges), 0)
