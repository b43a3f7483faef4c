"""The failures of model servers, as problems for the client.

Addresses, kinds and sizes go to the log; the client gets what it can act on. What a server has said may hold the prompt
or the answer: it is logged at debug only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import httpx2
from pydantic import BaseModel, ValidationError

from contract import Problem, ProblemError, ProblemType, problems
from contract.problems import raised

log = logging.getLogger(__name__)


class ServerGoneError(ProblemError):
    """The model server, or the way to it, is gone or has broken. The request was not the reason, as far as is known:
    made again it may be answered."""


RETRY_SECONDS = 5
"""Retry-After where the model server gives none."""

MOST_RETRY_SECONDS = 3600
"""Largest Retry-After that is passed on."""

MESSAGE_CHARS = 500
"""Longest text of a model server that is passed on to the client."""

_OUR_TYPE = problems.MALFORMED_BODY.uri.removesuffix(problems.MALFORMED_BODY.slug)

# Problems with the request that web made, not with the one that the client sent: web's mistake.
_OWN_MISTAKES = {
    problems.MALFORMED_REQUEST,
    problems.MALFORMED_BODY,
    problems.UNAUTHORIZED,
    problems.FORBIDDEN,
    problems.NOT_FOUND,
    problems.METHOD_NOT_ALLOWED,
    problems.NOT_ACCEPTABLE,
    problems.HEADER_TIMEOUT,
    problems.HEADER_TOO_LARGE,
    problems.BODY_TIMEOUT,
    problems.UNSUPPORTED_MEDIA_TYPE,
}


@contextmanager
def transport_failures(url: str) -> Iterator[None]:
    """Raise what httpx2 raises as a ProblemError. `url` goes to the log."""
    try:
        yield
    except httpx2.PoolTimeout as error:
        raise _failure(
            url, error, problems.OVERLOADED, "All connections to the model servers are taken.", RETRY_SECONDS
        ) from None
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        detail = "The model server does not take connections."
        raise _failure(url, error, problems.UNAVAILABLE, detail, RETRY_SECONDS, gone=True) from None
    except httpx2.TimeoutException as error:
        kind = type(error).__name__
        raise _failure(url, kind, problems.UPSTREAM_TIMEOUT, "The model server took too long.") from None
    except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
        detail = "The connection to the model server broke before its answer was whole."
        kind = type(error).__name__
        raise _failure(url, kind, problems.BAD_UPSTREAM, detail, said=str(error), gone=True) from None
    except httpx2.HTTPError as error:
        raise bad_answer(url, type(error).__name__, str(error)) from None


def bad_answer(url: str, why: str, said: str = "") -> ProblemError:
    """BAD_UPSTREAM; `why` goes to the log, and at debug `said`, too."""
    return _failure(url, why, problems.BAD_UPSTREAM, "The model server's answer cannot be used.", said=said)


def cut_off(url: str, why: str, said: str = "") -> ProblemError:
    """The same of an answer that ends too early, because its server is gone."""
    detail = "The model server's answer cannot be used."
    return _failure(url, why, problems.BAD_UPSTREAM, detail, said=said, gone=True)


def kept_back(url: str) -> ProblemError:
    """CONTENT_FILTERED."""
    detail = "The model server's filter keeps the text back."
    return _failure(url, "content_filter", problems.CONTENT_FILTERED, detail, level=logging.INFO)


def refused(url: str, why: str, said: str = "") -> ProblemError:
    """REFUSED_UPSTREAM: it would refuse the same again. `why` goes to the log, and at debug `said`, too."""
    detail = "The model server does not take requests from this server."
    return _failure(url, why, problems.REFUSED_UPSTREAM, detail, said=said)


def refusal(url: str, status: int, headers: Mapping[str, str], body: bytes) -> ProblemError:
    """The problem of an answer whose status is not 200: the server's own, or one that fits the status."""
    ours = our_problem(url, body, _retry_after(headers))
    if ours is not None:
        return ours
    message = _message(body)
    seen = f"status {status} and {len(body)} bytes"
    match status:
        case HTTPStatus.BAD_REQUEST | HTTPStatus.REQUEST_ENTITY_TOO_LARGE | HTTPStatus.UNPROCESSABLE_ENTITY:
            detail = f"The model server refused the request: {message or 'it does not say why'}"
            return _failure(url, seen, problems.INVALID_FIELD, detail, said=message)
        case HTTPStatus.BAD_GATEWAY:
            return cut_off(url, seen, message)
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            wait = _retry_after(headers)
            # A gateway that has lost the server does not say when to come again; a server that is full may.
            gone = status == HTTPStatus.SERVICE_UNAVAILABLE and wait is None
            detail = "The model server is full or not ready."
            return _failure(url, seen, problems.OVERLOADED, detail, wait or RETRY_SECONDS, said=message, gone=gone)
        case HTTPStatus.GATEWAY_TIMEOUT:
            return _failure(url, seen, problems.UPSTREAM_TIMEOUT, "The model server took too long.", said=message)
        case _ if 300 <= status < 500 and status != HTTPStatus.REQUEST_TIMEOUT:
            # 404 too: web itself serves the model's name, so the mistake is the operator's and not the client's.
            return refused(url, seen, message)
        case _:
            return bad_answer(url, seen, message)


def too_slow(url: str, seconds: float) -> ProblemError:
    """UPSTREAM_TIMEOUT after so many seconds of silence."""
    return _failure(url, f"silent for {seconds:g} s", problems.UPSTREAM_TIMEOUT, "The model server took too long.")


def too_late(url: str, *, own_limit: bool) -> ProblemError:
    """TOO_LATE: the time for the whole request is over, the client's own limit, which is nobody's failure, or web's."""
    detail, level = "The time that the request was given is over.", logging.INFO if own_limit else logging.WARNING
    return _failure(url, "not finished in time", problems.TOO_LATE, detail, level=level)


def unusable_event(url: str, data: bytes) -> ProblemError:
    """The problem of an event that cannot be parsed: a problem document of our predictor, or BAD_UPSTREAM."""
    return our_problem(url, data) or bad_answer(url, f"an event of {len(data)} bytes is unusable", _message(data))


def our_problem(url: str, data: bytes, retry_after: int | None = None) -> ProblemError | None:
    """The problem to pass on where `data` is a problem document of our predictor, or else None."""
    try:
        problem = Problem.of_any_version(data)
    except ValidationError:
        return None
    if not problem.type.startswith(_OUR_TYPE) or not 400 <= problem.status <= 599:
        return None
    slug = problem.type.removeprefix(_OUR_TYPE)
    kind = raised(problem).kind
    if kind in _OWN_MISTAKES:
        return refused(url, f"it has found {slug}", problem.detail)
    # What a client did wrong, or too often, is no warning for an operator. A loading model says so several times a
    # second.
    level = logging.INFO if kind.status < 500 or kind is problems.OVERLOADED else logging.WARNING
    level = logging.DEBUG if kind is problems.LOADING else level
    # It shuts down, or only a restart helps. A model that could not be started, whose phase is told, fails again.
    gone = kind is problems.UNAVAILABLE and "phase" not in (problem.model_extra or {})
    wait = problem.retry_after or retry_after
    passed_on = _failure(
        url, "its own problem", kind, problem.detail, wait, said=problem.detail, level=level, gone=gone
    )
    # `error` repeats the problem for OpenAI clients of the predictor.
    members = {name: value for name, value in (problem.model_extra or {}).items() if name != "error"}
    passed_on.problem = passed_on.problem.model_copy(update={**members, "errors": problem.errors})
    return passed_on


class _ErrorBody(BaseModel):
    error: Any = None
    message: Any = None
    detail: Any = None


def _message(body: bytes) -> str:
    """The message in an error body, wherever the runtime puts it; empty where there is none."""
    try:
        parsed = _ErrorBody.model_validate_json(body)
    except ValidationError:
        return ""  # such as the HTML of a proxy
    inner = parsed.error.get("message") if isinstance(parsed.error, dict) else parsed.error
    for text in (inner, parsed.message, parsed.detail):
        if isinstance(text, str) and text:
            return text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS - 1] + "…"
    return ""


def _retry_after(headers: Mapping[str, str]) -> int | None:
    text = headers.get("retry-after", "")
    seconds = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None  # dates are ignored
    return None if seconds is None else min(max(1, seconds), MOST_RETRY_SECONDS)


def _failure(
    url: str,
    seen: object,
    kind: ProblemType,
    detail: str,
    retry_after: float | None = None,
    *,
    said: str = "",
    level: int = logging.WARNING,
    gone: bool = False,
) -> ProblemError:
    log.log(level, "%s at %s: %s", kind.slug, url, seen)
    if said:
        log.debug("%s has said %r", url, said)
    return (ServerGoneError if gone else ProblemError)(kind, detail, retry_after=retry_after)
