"""Who may deliver events: senders with an OIDC token of Knative for this audience, or with the shared secret."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import httpx2
from starlette.datastructures import Headers

from contract import ProblemError, problems
from web.callers.issuer_keys import IssuerKeys

if TYPE_CHECKING:
    from web.settings import Settings

log = logging.getLogger(__name__)


class EventAuthenticator:
    """Checks the Authorization header. Where neither audience nor secret is set, every event is accepted on a single
    machine, and on a cluster only with `events_open`."""

    def __init__(self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._audience = settings.events_audience
        self._subjects = settings.events_subjects
        self._secret = settings.events_secret.get_secret_value() if settings.events_secret else None
        self._open = not (self._audience or self._secret) and (settings.events_open or not settings.on_cluster)
        self._keys = IssuerKeys(settings.events_issuer, transport) if self._audience else None

    async def check(self, headers: Headers) -> bool:
        """Whether the delivery proves its sender; not where everybody may deliver. Raises UNAUTHORIZED without a valid
        token or the secret, UNAVAILABLE without the issuer's keys."""
        if self._open:
            return False
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        credential = credential.strip()
        if scheme.lower() == "bearer":
            if self._is_secret(credential) or (self._keys and await self._is_token(credential)):
                return True
        elif scheme.lower() == "basic" and self._is_secret(_password(credential)):
            return True
        if not (self._audience or self._secret):
            detail = "Events are taken once events_audience, events_secret or events_open is set."
        else:
            detail = "Events need an Authorization header: Bearer with a token for this audience, or with the secret."
        raise ProblemError(problems.UNAUTHORIZED, detail)

    def _is_secret(self, credential: str) -> bool:
        return self._secret is not None and hmac.compare_digest(credential.encode(), self._secret.encode())

    async def _is_token(self, token: str) -> bool:
        assert self._keys is not None
        assert self._audience is not None
        claims = await self._keys.claims(token, self._audience)
        if claims is None:
            return False
        subject = str(claims.get("sub", ""))
        if self._subjects and not any(fnmatchcase(subject, allowed) for allowed in self._subjects):
            log.info("a token was refused: it is %r's", subject)
            return False
        return True


def _password(credential: str) -> str:
    """Of basic authentication, which Go's client, and so Knative, makes of http://name:secret@host/."""
    try:
        return base64.b64decode(credential, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
