"""`GET /` for browsers: the page. `POST /`: its form, for browsers that run no scripts."""

from __future__ import annotations

import hashlib
import html
import json
import re
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message

from contract import GenerationRequest, PictureResult, ProblemError, TextResult, problems
from contract.problems import invalid_fields
from contract.result import RESULT
from web.http.accept import JSON, heaviest
from web.page.assets import Assets, packed, takes_gzip

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

HTML = "text/html"
FORM = "application/x-www-form-urlencoded"
LANGUAGES = ("en", "zh")
THEMES = ("auto", "light", "dark")
FIELDS = 32
"""Most fields of a form."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",  # with less, forms of our own come from the origin null
    "Vary": "Accept, Accept-Encoding, Accept-Language, Cookie",
    "X-Content-Type-Options": "nosniff",
}
_TEXT = re.compile(r'<[^<>]*\bdata-t="([^"]+)"[^<>]*>')
_ATTRIBUTE = re.compile(r'\bdata-t-(placeholder|aria-label)="([^"]+)"')


class Page:
    """One template and the texts of its languages, which the scripts share; rendered once for each way to see it."""

    def __init__(self, settings: Settings, assets: Assets, discovery: dict[str, Any], generate: ASGIApp) -> None:
        self._settings = settings
        self._discovery = JSONResponse(discovery, headers={"Vary": _HEADERS["Vary"]})
        self._generate = generate
        self._assets = assets
        self._texts = {language: _texts(assets.text(f"{language}.js")) for language in LANGUAGES}
        self._rendered: dict[tuple[str, str], _Rendered] = {}

    async def serve(self, request: Request) -> Response:
        return await (self._take(request) if request.method == "POST" else self._show(request))

    async def _show(self, request: Request) -> Response:
        """The page where HTML is preferred, and else the document that programs discover everything by."""
        if heaviest(request.headers, (JSON, HTML)) != HTML:
            return self._discovery
        language, theme = self._language(request), _theme(request)
        if (language, theme) not in self._rendered:
            self._rendered[language, theme] = _Rendered(self._render(language, theme))
        page = self._rendered[language, theme]
        headers = {**_HEADERS, "Cache-Control": "no-cache", "ETag": page.tag, "Content-Language": language}
        known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
        if page.tag in known:
            return Response(status_code=304, headers=headers)
        body = page.body
        if takes_gzip(request.headers):
            body, headers["Content-Encoding"] = page.packed, "gzip"
        return Response(body, headers=headers, media_type=HTML)

    async def _take(self, request: Request) -> Response:
        """The answer to the form is the page with the result in it, or with what is wrong."""
        language = self._language(request)
        form: dict[str, str] = {}
        status = 200
        headers = {**_HEADERS, "Cache-Control": "no-store", "Content-Language": language}
        try:
            _check_own(request.headers)
            form = _form(request.headers, await request.body())
            answer = self._shown(await self._result(request, form), language)
        except ProblemError as error:
            status = error.kind.status
            headers.update(error.headers)
            answer = f'<p class="problem" role="alert">{html.escape(self._sentence(error, language))}</p>'
        body = self._render(language, _theme(request), form, answer)
        return Response(body, status, headers, HTML)

    async def _result(self, request: Request, form: dict[str, str]) -> TextResult | PictureResult:
        """By the way that all generations go, with its limits; it is given up when the client leaves, as any other."""
        order = _order(form)
        body = order.model_dump_json(exclude_none=True).encode()
        replaced = (b"content-type", b"content-length", b"accept", b"prefer", b"idempotency-key")
        headers = [(name, value) for name, value in request.scope["headers"] if name not in replaced]
        headers += [(b"content-type", JSON.encode()), (b"accept", JSON.encode())]
        answer = bytearray()

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            answer.extend(message.get("body", b""))

        await self._generate({**request.scope, "headers": headers}, receive, send)
        return RESULT.validate_json(bytes(answer))

    def _language(self, request: Request) -> str:
        """What was chosen here, or what the browser prefers."""
        for chosen in (request.query_params.get("lang"), _cookie(request, "lang")):
            if chosen in LANGUAGES:
                return chosen
        weights: dict[str, float] = dict.fromkeys(LANGUAGES, 0.0)
        for part in request.headers.get("accept-language", "").split(","):
            name, _, weight = part.strip().lower().partition(";q=")
            language = name.partition("-")[0]
            if language in weights:
                weights[language] = max(weights[language], _number(weight) if weight else 1.0)
        return max(weights, key=lambda language: weights[language])

    def _render(self, language: str, theme: str, form: dict[str, str] | None = None, answer: str = "") -> bytes:
        texts = self._texts[language]
        form = form or {}
        chosen = form.get("model") if form.get("model") in self._settings.models else next(iter(self._settings.models))

        def text(found: re.Match[str]) -> str:
            return found[0] + html.escape(texts[found[1]], quote=False)

        def attribute(found: re.Match[str]) -> str:
            return f'{found[0]} {found[1]}="{html.escape(texts[found[2]])}"'

        row = self._assets.text("model.html")
        models = [
            _filled(
                row,
                name=html.escape(name),
                kind=model.kind,
                kind_text=f"kind.{model.kind}",
                checked="checked" if name == chosen else "",
            )
            for name, model in self._settings.models.items()
        ]
        static = self._assets.address
        preloads = [f'<link rel="modulepreload" href="{static}/{name}">' for name in self._assets.modules]
        template = _filled(self._assets.text("page.html"), models="".join(models))
        template = _ATTRIBUTE.sub(attribute, _TEXT.sub(text, template))
        values = {name: html.escape(form.get(name, "")) for name in _VALUES}
        return _filled(
            template,
            static=static,
            preloads="\n".join(preloads),
            lang=language,
            locale=texts["locale"],
            other=texts["other"],
            theme=theme,
            answer=answer,
            idle="hidden" if answer else "",
            **values,
        ).encode()

    def _shown(self, result: TextResult | PictureResult, language: str) -> str:
        note = html.escape(self._texts[language]["state.done"])
        if isinstance(result, TextResult):
            shown = f'<div class="text" dir="auto">{html.escape(result.text)}</div>'
        else:
            shown = "".join(
                f'<img class="picture" src="data:{html.escape(picture.media_type)};base64,{html.escape(picture.data)}"'
                f' alt="{note}" width="{picture.width}" height="{picture.height}">'
                for picture in result.images
            )
        return f'<p class="note">{note}</p>{shown}'

    def _sentence(self, error: ProblemError, language: str) -> str:
        """As problems.js says it."""
        texts = self._texts[language]
        retry = error.problem.retry_after
        sentence = texts.get(f"problem.{error.kind.slug}", texts["problem"])
        sentence = sentence.replace("{title}", error.problem.title).replace("{detail}", error.problem.detail)
        return sentence if retry is None else f"{sentence} {texts['retry'].replace('{seconds}', str(retry))}"


class _Rendered:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.packed = packed(body)
        self.tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'


_NUMBERS = {"seed", "max_tokens", "temperature", "steps"}
_VALUES = ("prompt", "seed", "max_tokens", "temperature", "steps", "size", "negative_prompt")


def _texts(module: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads(module.removeprefix("export default ").rstrip().removesuffix(";"))
    return texts


def _filled(template: str, **values: str) -> str:
    """In one pass: what a value holds is no placeholder."""
    return re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def _cookie(request: Request, name: str) -> str:
    cookie: SimpleCookie = SimpleCookie()
    cookie.load(request.headers.get("cookie", ""))
    return cookie[name].value if name in cookie else ""


def _theme(request: Request) -> str:
    theme = _cookie(request, "theme")
    return theme if theme in THEMES else "auto"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _check_own(headers: Headers) -> None:
    """Raise a problem where another site's page sends the form: generating costs, and its reader did not ask for it."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    own = site in ("same-origin", "none") if site else origin is None or urlsplit(origin).netloc == headers.get("host")
    if not own:
        raise ProblemError(problems.FORBIDDEN, "This form is taken from its own page only.")


def _form(headers: Headers, body: bytes) -> dict[str, str]:
    """What was filled in."""
    sent = headers.get("content-type") or "nothing in particular"
    if sent.partition(";")[0].strip().lower() != FORM:
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, f"The form came as {sent}; it is taken as {FORM}.")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=FIELDS, errors="strict")
    except ValueError:
        raise ProblemError(problems.MALFORMED_BODY, "The form cannot be read.") from None
    # Forms send line breaks as two characters, and nobody has typed the first one.
    return {name: values[0].replace("\r\n", "\n") for name, values in fields.items() if name in (*_VALUES, "model")}


def _order(form: dict[str, str]) -> GenerationRequest:
    """Of the fields that stand for one another, those of the other kind are left empty by whoever fills the form in."""
    fields: dict[str, Any] = {"prompt": "", **form}
    for name in _NUMBERS & fields.keys():
        number = fields[name].strip()
        fields[name] = int(number) if re.fullmatch("[0-9]{1,19}", number) else number
        if name == "temperature" and re.fullmatch(r"[0-9]{0,9}\.[0-9]{1,9}", number):
            fields[name] = float(number)
    try:
        return GenerationRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid_fields(error, GenerationRequest) from None
