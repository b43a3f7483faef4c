"""Entity tags, and answers to who has the content already (RFC 9110, 13.1.2)."""

from __future__ import annotations

import hashlib

from starlette.datastructures import Headers
from starlette.responses import Response


def entity_tag(content: bytes) -> str:
    """Weak, because a content has this tag however it is encoded."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'


def unless_known(headers: Headers, response: Response) -> Response:
    """The response, or a 304 in its place where the client has what its ETag names."""
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    if response.headers["ETag"].removeprefix("W/") not in known and "*" not in known:
        return response
    of_the_content = {"content-type", "content-length", "content-encoding"}
    left = {name: value for name, value in response.headers.items() if name not in of_the_content}
    return Response(status_code=304, headers=left)
