"""`GET /` for browsers: the page. `POST /`: its form, for browsers that run no scripts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from contract import GenerationRequest, PictureResult, ProblemError, TextResult
from contract.models.description import DescribedModel
from web.http.accept import JSON, heaviest
from web.http.entity_tag import entity_tag, unless_known
from web.http.origin import check_origin
from web.http.responses import StaticDocument
from web.page.appearance import Appearance
from web.page.assets import Assets, packed, takes_gzip
from web.page.form import form_request, read_form, shared_form
from web.page.template import ModelCards, PageTemplate
from wire.problems import note_problem

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

HTML = "text/html"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; manifest-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",  # with less, browsers send our own form with the origin null
    "Vary": "Accept, Accept-Encoding, Accept-Language, Cookie",
}

Generate = Callable[[GenerationRequest, Request], Awaitable[TextResult | PictureResult]]
"""Generates the whole result of a request that came with this HTTP request; a ProblemError when there is none."""


class Page:
    """The empty page is rendered once for each appearance, and once more where more is known of the models. One
    that an address fills in is rendered for each request. Programs get the `discovery` document in its place."""

    def __init__(
        self,
        settings: Settings,
        assets: Assets,
        models: ModelCards,
        discovery: dict[str, Any],
        generate: Generate,
    ) -> None:
        self._discovery = StaticDocument(lambda: discovery, Vary=_HEADERS["Vary"])
        self._generate = generate
        self._limits = settings.limits
        self._origins = settings.cors_origins
        self._template = PageTemplate(assets, models, settings.limits.max_tokens, settings.root_path)
        self._models = models
        self._rendered: dict[Appearance, _Rendered] = {}
        self._rendered_with: list[DescribedModel] = []

    async def serve(self, http_request: Request) -> Response:
        if http_request.method == "POST":
            return await self._answer_form(http_request)
        return await self._show(http_request)

    async def _show(self, http_request: Request) -> Response:
        """The page where HTML is preferred, and else the discovery document."""
        if heaviest(http_request.headers, (JSON, HTML)) != HTML:
            return await self._discovery.serve(http_request)
        appearance = Appearance.of(http_request)
        shared = shared_form(http_request.scope.get("query_string", b""), self._limits)
        page = _Rendered(self._template.render(appearance, shared)) if shared else self._empty(appearance)
        headers = {
            **_HEADERS,
            "Cache-Control": "no-cache",
            "ETag": page.tag,
            "Content-Language": appearance.language,
        }
        body = page.body
        if takes_gzip(http_request.headers):
            body, headers["Content-Encoding"] = page.packed, "gzip"
        return unless_known(http_request.headers, Response(body, headers=headers, media_type=HTML))

    def _empty(self, appearance: Appearance) -> _Rendered:
        if (models := list(self._models)) != self._rendered_with:  # more is known of them
            self._rendered, self._rendered_with = {}, models
        if appearance not in self._rendered:
            self._rendered[appearance] = _Rendered(self._template.render(appearance))
        return self._rendered[appearance]

    async def _answer_form(self, http_request: Request) -> Response:
        """The page with the result in it, or with the problem."""
        appearance = Appearance.of(http_request)
        language = appearance.language
        form: dict[str, str] = {}
        status = 200
        headers = {**_HEADERS, "Cache-Control": "no-store", "Content-Language": language}
        try:
            check_origin(http_request.headers, self._origins)
            form = read_form(http_request.headers, await http_request.body())
            answer = self._template.result(
                await self._generate(form_request(form, self._limits), http_request), language
            )
        except ProblemError as error:
            note_problem(error)
            status = error.kind.status
            headers.update(error.headers)
            answer = self._template.problem(error, language)
        return Response(self._template.render(appearance, form, answer), status, headers, HTML)


class _Rendered:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.packed = packed(body)
        self.tag = entity_tag(body)
