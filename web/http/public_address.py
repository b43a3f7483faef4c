"""What the addresses that a client is told begin with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from contract import invalid_field
from wire.request_context import from_trusted_hop

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


def public_base(settings: Settings, scope: Scope) -> str:
    """PUBLIC_URL; or else where this request was sent to, as its Host says, or a trusted proxy. Where that cannot be
    read the prefix of all paths, so that addresses are relative. Only who asks is told what its own headers say."""
    if settings.public_url is not None:
        return settings.public_url
    headers = Headers(scope=scope)
    scheme, host = scope["scheme"], headers.get("host", "")
    if from_trusted_hop(scope, settings.trusted_hops):
        scheme = _first(headers, "x-forwarded-proto") or scheme
        host = _first(headers, "x-forwarded-host") or host
    if scheme not in ("http", "https") or not _HOST.fullmatch(host):
        return settings.root_path
    return f"{scheme}://{host}{settings.root_path}"


def address_base(settings: Settings, http_request: Request) -> str | None:
    """What the addresses of pictures begin with, where the query asks for these in the place of the pictures."""
    asked = http_request.query_params.getlist("images")
    if len(asked) > 1:
        raise invalid_field("images", "must be there once")
    if asked and asked[0] not in ("data", "url"):
        raise invalid_field("images", "must be data or url")
    return public_base(settings, http_request.scope) if asked == ["url"] else None


def _first(headers: Headers, name: str) -> str:
    """What the proxy that the client has reached says."""
    return headers.get(name, "").partition(",")[0].strip().lower()
