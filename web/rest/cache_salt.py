"""The salt that a caller's texts have at a predictor, which keeps what one has left in its cache for the next."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from contract.callers import DEFAULT_CALLER, EVENTS_CALLER
from wire.request_context import CACHE_SALT_HEADER

if TYPE_CHECKING:
    from pydantic import SecretStr


class CacheSalts:
    """Nobody without the `secret` can tell a caller's salt from its name. Without one each process draws its own, and a
    caller's texts find what others have left that came by the same process."""

    def __init__(self, secret: SecretStr | None) -> None:
        self._secret = secrets.token_bytes() if secret is None else secret.get_secret_value().encode()

    def headers(self, caller: str) -> dict[str, str]:
        """None where callers are not told apart: how quick an answer is would tell one of them what another asked."""
        if caller in (DEFAULT_CALLER, EVENTS_CALLER):
            return {}
        # Ids of jobs are made with the same secret, and with one line feed.
        salt = hmac.new(self._secret, f"cache salt\n{caller}\n".encode(), hashlib.sha256).hexdigest()
        return {CACHE_SALT_HEADER: salt}
