"""The files that the page loads. Their address changes with their content, so browsers keep them for ever.

One of them is the client that other pages and Node load, too: it has an address that stays."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from contract import ProblemError, problems
from web.http.entity_tag import entity_tag, unless_known
from web.http.quality_values import weighted
from web.page.appearance import LANGUAGES

_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_FOLDER = Path(__file__).parent / "static"
_CLIENT = Path(__file__).parent / "module" / "generate.js"
_FOREVER = "public, max-age=31536000, immutable"


class Assets:
    """The files, read once: they do not change while the container runs."""

    def __init__(self, root_path: str, folder: Path = _FOLDER) -> None:
        self._root_path = root_path
        found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.*"))}
        self._files = {name: path.read_bytes() for name, path in (found | {_CLIENT.name: _CLIENT}).items()}
        self._packed = {name: packed(content) for name, content in self._files.items()}
        self._tags = {name: entity_tag(content) for name, content in self._files.items()}
        everything = hashlib.sha256()
        for name, content in self._files.items():
            everything.update(f"{name} {len(content)} ".encode() + content)
        self.digest = everything.hexdigest()[:16]

    @property
    def address(self) -> str:
        return f"{self._root_path}/static/{self.digest}"

    def modules(self, language: str) -> list[str]:
        """Those that the page needs at once, for a reader of the language."""
        later = ("on_demand/", *(f"texts/{other}.js" for other in LANGUAGES if other != language))
        return [name for name in self._files if name.endswith(".js") and not name.startswith(later)]

    @property
    def styles(self) -> list[str]:
        return [name for name in self._files if name.startswith("style/")]

    def text(self, name: str) -> str:
        return self._files[name].decode()

    async def serve(self, http_request: Request) -> Response:
        """Under the address of another version, too, as while a rollout is going on; browsers do not keep that."""
        name = http_request.path_params["name"]
        if name not in self._files or Path(name).suffix not in _TYPES:
            raise ProblemError(problems.NOT_FOUND, f"There is nothing at {http_request.url.path}.")
        known = http_request.path_params["digest"] == self.digest
        return self._response(name, http_request, _FOREVER if known else "no-store")

    async def serve_client(self, http_request: Request) -> Response:
        """The client of `POST /generate`, which whoever imports it asks for again and seldom gets anew."""
        return self._response(_CLIENT.name, http_request, "no-cache")

    def _response(self, name: str, http_request: Request, cache_control: str) -> Response:
        headers = {"Cache-Control": cache_control, "ETag": self._tags[name], "Vary": "Accept-Encoding"}
        content = self._files[name]
        if takes_gzip(http_request.headers):
            content, headers["Content-Encoding"] = self._packed[name], "gzip"
        response = Response(content, headers=headers, media_type=_TYPES[Path(name).suffix])
        return unless_known(http_request.headers, response)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def takes_gzip(headers: Headers) -> bool:
    return weighted(headers, "accept-encoding").get("gzip") == 1
