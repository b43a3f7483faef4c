"""Who may ask this server for a generation, and in whose name."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping

from pydantic import SecretStr

from contract import problems
from contract.callers import CACHE_SALT, DEFAULT_CALLER, EVENTS_CALLER, is_caller
from contract.cloudevents import CALLER, CloudEvent
from contract.problems import ProblemError
from wire.cloudevents import is_signed
from wire.request_context import CACHE_SALT_HEADER, CALLER_HEADER

_HEADER = CALLER_HEADER.lower()


class Access:
    """Without a `token` everybody may ask. With one, whoever has it may, and events that are signed with it; with
    `events_open` all other events, too. All headers have names in lower case."""

    def __init__(self, token: SecretStr | None = None, *, events_open: bool = False) -> None:
        self._token = token.get_secret_value() if token else None
        self._events_open = events_open

    def has_token(self, headers: Mapping[str, str]) -> bool:
        """Whether a request proves that its sender has the token; never where there is none."""
        if self._token is None:
            return False
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "basic"):
            return False
        given = _password(credential) if scheme.lower() == "basic" else credential.strip()
        return hmac.compare_digest(given.encode(), self._token.encode())

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise UNAUTHORIZED for a request that is no event."""
        if self._token is not None and not self.has_token(headers):
            detail = "This server generates only for who sends its token in the header Authorization: Bearer."
            raise ProblemError(problems.UNAUTHORIZED, detail)

    def caller_of_event(self, event: CloudEvent, has_token: bool) -> str:
        """Whose event it is; UNAUTHORIZED when it may not ask. `has_token` says so of its delivery."""
        if has_token or (self._token is not None and is_signed(event, self._token)):
            caller = event.extensions.get(CALLER, "")
            return caller if is_caller(caller) else EVENTS_CALLER
        if self._token is not None and not self._events_open:
            detail = "Events need a signature with this server's token, or a delivery with it as Authorization: Bearer."
            raise ProblemError(problems.UNAUTHORIZED, detail)
        return EVENTS_CALLER


def caller_of(headers: Mapping[str, str]) -> str:
    """Whose request it is. Headers that could not be believed have been taken away before."""
    caller = headers.get(_HEADER, "")
    return caller if is_caller(caller) else DEFAULT_CALLER


def cache_salt_of(headers: Mapping[str, str]) -> str | None:
    """The salt of a request that has none in its body. It needs no proof: nobody knows another caller's."""
    salt = headers.get(CACHE_SALT_HEADER.lower(), "")
    return salt if re.fullmatch(CACHE_SALT, salt) else None


def without_caller(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request whose sender has not proven that it may name a caller."""
    return {name: value for name, value in headers.items() if name != _HEADER}


def _password(credential: str) -> str:
    """Of basic authentication, which Knative makes of the address http://name:token@host/ of a subscriber."""
    try:
        return base64.b64decode(credential, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
