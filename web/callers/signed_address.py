"""Addresses that whoever has them may read for a while, without a key: their query holds when they expire, and a
signature of that and of the path. A path holds the id of a job, and so says whose it is."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.types import Scope

from contract import ProblemError, problems

EXPIRES, SIGNATURE = "expires", "signature"
"""Members of the query: seconds since 1970, and the signature."""

_SIGNED = re.compile(r"/generations/[^/]+/images/[^/]+")


def is_signed(scope: Scope, path: str) -> bool:
    """Whether a request brings a signature to a path that is to check it, in the place of a key."""
    return (
        scope["method"] in ("GET", "HEAD")
        and _SIGNED.fullmatch(path) is not None
        and SIGNATURE in QueryParams(scope["query_string"])
    )


class AddressSigner:
    """`secret` is what all replicas know and nobody else; it is made with other things, too."""

    def __init__(self, secret: Callable[[], Awaitable[str]]) -> None:
        self._secret = secret

    async def signed(self, path: str, expires: int) -> str:
        """The path with the query that lets everybody read it until then."""
        return f"{path}?{urlencode({EXPIRES: expires, SIGNATURE: await self._signature(path, str(expires))})}"

    async def check(self, path: str, query: QueryParams, now: float) -> int:
        """When this signed address expires. Raises FORBIDDEN where it has, or was never signed here."""
        expires, signature = query.get(EXPIRES, ""), query.get(SIGNATURE, "")
        # Before anything else, so that who has no signature is told nothing.
        if not hmac.compare_digest(signature.encode(), (await self._signature(path, expires)).encode()):
            raise ProblemError(problems.FORBIDDEN, "The signature is not one of this address.")
        if int(expires) <= now:
            detail = "This address has expired. Who asks for the generation again is told a new one."
            raise ProblemError(problems.FORBIDDEN, detail)
        return int(expires)

    async def _signature(self, path: str, expires: str) -> str:
        # Ids of jobs and salts of caches are made with the same secret, and with line feeds.
        key = hmac.digest((await self._secret()).encode(), b"signed addresses", "sha256")
        signature = hmac.digest(key, f"{path}\n{expires}".encode(), "sha256")
        return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
