"""Who calls: told of each request before its body is read and any route is reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import httpx2
from starlette.datastructures import Headers
from starlette.types import Scope

from contract import ProblemError, problems
from web.callers.caller import DEFAULT_CALLER, NAME_TEXT, is_caller_name
from web.callers.issuer_keys import IssuerKeys
from web.callers.key_file import KeyFile
from web.callers.signed_address import is_signed
from wire.request_context import Hops, from_trusted_hop

if TYPE_CHECKING:
    from web.settings import Settings

OPEN_PATHS = frozenset({"/", "/generate.js", "/healthz", "/readyz", "/openapi.json"})
"""That everybody may GET, and so everything below STATIC, and what has a signed address (see is_signed), which its
endpoint checks. Whatever is not named here needs a caller."""

STATIC = "/static/"

EVENTS = "/events"
"""Whose senders have proofs of their own: see web.events.authentication."""

Identify = Callable[[Scope], Awaitable[str]]
"""Finds the caller of a request. Raises UNAUTHORIZED where nothing proves it, UNAVAILABLE where it cannot be told."""


class CallerAuthentication:
    """Puts the caller's name into the request's state, or raises what an Identify raises. `transport` takes the place
    of the network in tests."""

    def __init__(
        self, settings: Settings, key_file: KeyFile | None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._identify = _identification(settings, key_file, transport)

    async def __call__(self, scope: Scope) -> None:
        if not _is_open(scope):
            scope["state"]["caller"] = await self._identify(scope)


def _identification(
    settings: Settings, key_file: KeyFile | None, transport: httpx2.AsyncBaseTransport | None
) -> Identify:
    """What the settings ask for."""
    match settings.callers:
        case "keys":
            assert key_file is not None
            return _by_key(key_file)
        case "jwt":
            assert settings.callers_issuer is not None
            assert settings.callers_audience is not None
            keys = IssuerKeys(settings.callers_issuer, transport)
            return _by_token(keys, settings.callers_audience, settings.callers_claim)
        case "header":
            return _by_header(settings.callers_header, settings.trusted_hops)
        case _:
            return _everybody


async def _everybody(_scope: Scope) -> str:
    return DEFAULT_CALLER


def _by_key(keys: KeyFile) -> Identify:
    async def identify(scope: Scope) -> str:
        caller = keys.caller(bearer(scope))
        if caller is None:
            raise ProblemError(problems.UNAUTHORIZED, "The key is not one of those that are taken here.")
        return caller

    return identify


def _by_token(keys: IssuerKeys, audience: str, claim: str) -> Identify:
    async def identify(scope: Scope) -> str:
        claims = await keys.claims(bearer(scope), audience)
        if claims is None:
            raise ProblemError(problems.UNAUTHORIZED, "The token is not one that is taken here, or no more.")
        caller = claims.get(claim)
        if not is_caller_name(caller):
            detail = f"The token's claim {claim} names no caller: a name is {NAME_TEXT}."
            raise ProblemError(problems.UNAUTHORIZED, detail)
        return str(caller)

    return identify


def _by_header(header: str, hops: Hops) -> Identify:
    async def identify(scope: Scope) -> str:
        if not from_trusted_hop(scope, hops):
            raise ProblemError(problems.UNAUTHORIZED, "Only requests that come through the gateway are taken here.")
        names = Headers(scope=scope).getlist(header)
        if len(names) != 1 or not is_caller_name(names[0]):
            raise ProblemError(problems.UNAUTHORIZED, f"The gateway has named no caller in {header}.")
        return names[0]

    return identify


def bearer(scope: Scope) -> str:
    """What stands behind Bearer in the one Authorization header; a problem where nothing does."""
    values = Headers(scope=scope).getlist("authorization")
    scheme, _, credential = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not credential.strip():
        raise ProblemError(problems.UNAUTHORIZED, "Send the header Authorization: Bearer, with your key or token.")
    return credential.strip()


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if scope["method"] in ("GET", "HEAD"):
        return path in OPEN_PATHS or path.startswith(STATIC) or is_signed(scope, path)
    return path == EVENTS and scope["method"] == "POST"
