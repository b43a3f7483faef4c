"""The public keys of an OpenID Connect issuer, and tokens that are checked with them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import httpx2

from contract import ProblemError, problems
from web.callers.service_account import credentials, is_api_server, trusted_authorities

log = logging.getLogger(__name__)

KEYS_SECONDS = 300.0
"""How long fetched keys are used."""

REFETCH_SECONDS = 10.0
"""Least time between two fetches for a key that is not among them."""

FETCH_SECONDS = 10.0
"""Longest that a fetch, which takes two requests, may take."""

DOCUMENT_BYTES = 1_048_576
"""Longest answer of an issuer that is read."""

LEEWAY_SECONDS = 10.0
"""How far the clocks of issuer and pod may be apart."""

_ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]

_DISCOVERY = "/.well-known/openid-configuration"

_API_SERVER_KEYS = "/openid/v1/jwks"
"""Where every Kubernetes API server publishes its keys. Its discovery document names another of its addresses, for
which a pod's credentials are not made, or somebody else's."""


class IssuerKeys:
    """The keys by their id (`kid`), from OpenID Connect discovery at `address`.

    The pod's token goes to its own API server, if that is the issuer, and to nobody else.
    """

    def __init__(self, address: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._address = address.rstrip("/")
        self._transport = transport
        self._issuer = ""
        self._keys: dict[str, Any] = {}
        self._fetched = -KEYS_SECONDS
        self._failed = False
        self._fetching = asyncio.Lock()

    async def claims(self, token: str, audience: str) -> dict[str, Any] | None:
        """What a token of this issuer for this audience says; None where it is not one, or no more.

        Raises UNAVAILABLE when the issuer cannot be asked for its keys.
        """
        import jwt  # here, because it imports cryptography: half of the time that web takes to start

        try:
            key = await self._find(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "aud", "iss"]},
            )
            return claims
        except (jwt.PyJWTError, RecursionError) as error:  # the latter of a header that is nested too deep
            log.info("a token was refused: %s", error)
            return None

    async def _find(self, name: str) -> Any:
        """None when the issuer has no such key."""
        if not self._fresh(name):
            async with self._fetching:
                if not self._fresh(name):
                    await self._fetch()
        if self._failed and name not in self._keys:
            detail = "The keys with which tokens are checked cannot be had at the moment."
            raise ProblemError(problems.UNAVAILABLE, detail, retry_after=REFETCH_SECONDS)
        return self._keys.get(name)

    def _fresh(self, name: str) -> bool:
        age = time.monotonic() - self._fetched
        return age < KEYS_SECONDS and (name in self._keys or age < REFETCH_SECONDS)

    async def _fetch(self) -> None:
        import jwt

        try:
            own = is_api_server(self._address)
            async with (
                asyncio.timeout(FETCH_SECONDS),
                httpx2.AsyncClient(
                    verify=trusted_authorities(),
                    transport=self._transport,
                    timeout=FETCH_SECONDS,
                    headers=credentials() if own else {},
                    trust_env=False,
                ) as client,
            ):
                document = await _read(client, self._address + _DISCOVERY)
                keys = await _read(client, self._address + _API_SERVER_KEYS if own else document["jwks_uri"])
            found = jwt.PyJWKSet.from_dict(keys)
            self._issuer = str(document["issuer"])
            self._keys = {str(key.key_id or ""): key for key in found.keys}
            self._failed = False
        except Exception as error:  # an issuer may answer anything
            log.error("the keys of %s cannot be had: %r", self._address, error)
            self._failed = True
        self._fetched = time.monotonic()


async def _read(client: httpx2.AsyncClient, address: str) -> Any:
    content = bytearray()
    async with client.stream("GET", address) as answer:
        answer.raise_for_status()
        async for part in answer.aiter_bytes():
            content += part
            if len(content) > DOCUMENT_BYTES:
                raise ValueError(f"{address} answers with more than {DOCUMENT_BYTES} bytes")
    return json.loads(content)
