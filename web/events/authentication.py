"""Who may deliver events: senders with an OIDC token of Knative for this audience, or with the shared secret."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import ssl
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from starlette.datastructures import Headers

from contract import ProblemError, problems

if TYPE_CHECKING:
    from web.settings import Settings

log = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the credentials for its API server, which publishes the issuer's keys."""

KEYS_SECONDS = 300.0
"""How long fetched keys are used."""

REFETCH_SECONDS = 10.0
"""Least time between two fetches for a key that is not among them."""

FETCH_SECONDS = 5.0
"""Longest that each of the two requests of a fetch may take."""

LEEWAY_SECONDS = 10.0
"""How far the clocks of issuer and pod may be apart."""

_ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]


class EventAuthenticator:
    """Checks the Authorization header. Where neither audience nor secret is set, every event is accepted on a single
    machine, and on a cluster only with `events_open`."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._audience = settings.events_audience
        self._subjects = settings.events_subjects
        self._secret = settings.events_secret.get_secret_value() if settings.events_secret else None
        self._open = not (self._audience or self._secret) and (settings.events_open or not settings.on_cluster)
        self._keys = _Keys(settings.events_issuer, transport) if self._audience else None

    async def check(self, headers: Headers) -> None:
        """Raise UNAUTHORIZED without a valid token or the secret, UNAVAILABLE without the issuer's keys."""
        if self._open:
            return
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        credential = credential.strip()
        if scheme.lower() == "bearer":
            if self._is_secret(credential) or (self._keys and await self._is_token(credential)):
                return
        elif scheme.lower() == "basic" and self._is_secret(_password(credential)):
            return
        if not (self._audience or self._secret):
            detail = "Events are taken once events_audience, events_secret or events_open is set."
        else:
            detail = "Events need an Authorization header: Bearer with a token for this audience, or with the secret."
        raise ProblemError(problems.UNAUTHORIZED, detail)

    def _is_secret(self, credential: str) -> bool:
        return self._secret is not None and hmac.compare_digest(credential.encode(), self._secret.encode())

    async def _is_token(self, token: str) -> bool:
        import jwt  # here, because it imports cryptography: half of the time that web takes to start

        assert self._keys is not None
        try:
            name = str(jwt.get_unverified_header(token).get("kid", ""))
            key = await self._keys.find(name)
            if key is None:
                return False
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._keys.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "aud", "iss"]},
            )
        except jwt.PyJWTError as error:
            log.info("a token was refused: %s", error)
            return False
        subject = str(claims.get("sub", ""))
        if self._subjects and not any(fnmatchcase(subject, allowed) for allowed in self._subjects):
            log.info("a token was refused: it is %r's", subject)
            return False
        return True


class _Keys:
    """The issuer's public keys by their id (`kid`), from OpenID Connect discovery at `address`."""

    def __init__(self, address: str, transport: httpx.AsyncBaseTransport | None) -> None:
        self.issuer = ""
        self._address = address.rstrip("/")
        self._transport = transport
        self._keys: dict[str, Any] = {}
        self._fetched = -KEYS_SECONDS
        self._failed = False
        self._fetching = asyncio.Lock()

    async def find(self, name: str) -> Any:
        """None when the issuer has no such key; an UNAVAILABLE problem when it cannot be asked."""
        if not self._fresh(name):
            async with self._fetching:
                if not self._fresh(name):
                    await self._fetch()
        if self._failed and name not in self._keys:
            detail = "The keys that tell who sends events cannot be had at the moment."
            raise ProblemError(problems.UNAVAILABLE, detail, retry_after=REFETCH_SECONDS)
        return self._keys.get(name)

    def _fresh(self, name: str) -> bool:
        age = time.monotonic() - self._fetched
        return age < KEYS_SECONDS and (name in self._keys or age < REFETCH_SECONDS)

    async def _fetch(self) -> None:
        import jwt

        token = ACCOUNT / "token"
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
        authority = ACCOUNT / "ca.crt"
        trust = ssl.create_default_context(cafile=str(authority)) if authority.exists() else True
        try:
            async with httpx.AsyncClient(
                verify=trust, transport=self._transport, timeout=FETCH_SECONDS, headers=headers, trust_env=False
            ) as client:
                document = (await client.get(f"{self._address}/.well-known/openid-configuration")).raise_for_status()
                keys = (await client.get(document.json()["jwks_uri"])).raise_for_status()
            found = jwt.PyJWKSet.from_dict(keys.json())
            self.issuer = str(document.json()["issuer"])
            self._keys = {str(key.key_id or ""): key for key in found.keys}
            self._failed = False
        except Exception as error:  # an issuer may answer anything
            log.error("the keys of %s cannot be had: %r", self._address, error)
            self._failed = True
        self._fetched = time.monotonic()


def _password(credential: str) -> str:
    """Of basic authentication, which Go's client, and so Knative, makes of http://name:secret@host/."""
    try:
        return base64.b64decode(credential, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
