"""The page without a browser: which document is answered, its headers, its files, its form."""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract import problems
from contract.problems import PROBLEM_TYPES

Web = Callable[..., httpx2.AsyncClient]
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
STATIC = Path(__file__).parents[3] / "web" / "page" / "static"
CLIENT = STATIC.parent / "module" / "generate.js"
FILES = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*.*")} | {CLIENT.name: CLIENT}
MOST_BYTES = 100_000  # of which 10,000 are the client, which anybody may import


def texts(language: str) -> dict[str, str]:
    module = (STATIC / "texts" / f"{language}.js").read_text()
    document: dict[str, str] = json.loads(module.removeprefix("export default ").rstrip().removesuffix(";"))
    return document


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (BROWSER["Accept"], "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("image/png", "application/json"),
    ],
)
async def test_browsers_get_the_page_and_programs_the_discovery(web: Web, accept: str, media_type: str) -> None:
    answer = await web().get("/", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert "Accept" in answer.headers["vary"].split(", ")


async def test_the_page_may_load_and_be_loaded_by_nobody_else(web: Web) -> None:
    answer = await web().get("/", headers=BROWSER)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|//\w", answer.text)


@pytest.mark.parametrize("foreign", ["AMCV_1@AdobeOrg=1", "a b=c", "=", "nothing", 'x="', "lang=fr"])
async def test_cookies_of_others_do_not_matter(web: Web, foreign: str) -> None:
    answer = await web().get("/", headers={**BROWSER, "Cookie": f"{foreign}; lang=zh; theme=dark"})
    assert answer.status_code == 200
    assert 'data-lang="zh" data-theme="dark"' in answer.text


async def test_the_page_is_asked_for_again_and_its_files_never(web: Web) -> None:
    client = web()
    page = await client.get("/", headers=BROWSER)
    assert page.headers["cache-control"] == "no-cache"
    again = await client.get("/", headers={**BROWSER, "If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == page.headers["etag"]
    addresses = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
    names = {address.split("/", 3)[3] for address in addresses}
    later = ("on_demand/", "texts/zh.js")
    assert names == {name for name, path in FILES.items() if path.suffix != ".html" and not name.startswith(later)}
    for address in addresses:
        file = await client.get(address)
        again = await client.get(address, headers={"If-None-Match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert file.headers["x-content-type-options"] == "nosniff"
        assert file.content == FILES[address.split("/", 3)[3]].read_bytes()


async def test_the_client_has_an_address_that_stays(web: Web) -> None:
    client = web()
    module = await client.get("/generate.js")
    assert (module.status_code, module.content) == (200, CLIENT.read_bytes())
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert module.headers["cache-control"] == "no-cache"
    again = await client.get("/generate.js", headers={"If-None-Match": module.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_pages_of_other_hosts_may_import_the_client(web: Web) -> None:
    module = await web(cors_origins=["https://shop.test"]).get("/generate.js", headers={"Origin": "https://shop.test"})
    assert module.headers["access-control-allow-origin"] == "https://shop.test"


async def test_a_page_of_another_version_finds_what_it_needs(web: Web) -> None:
    file = await web().get("/static/0123456789abcdef/main.js")
    assert (file.status_code, file.headers["cache-control"]) == (200, "no-store")
    assert file.headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("name", ["page.html", "nothing.js", "..%2Fapp.py", "%2e%2e/app.py"])
async def test_nothing_else_is_served(web: Web, slug: Callable[[httpx2.Response], str], name: str) -> None:
    assert slug(await web().get(f"/static/0/{name}")) == "not-found"


async def test_what_is_sent_is_packed_where_that_is_taken(web: Web) -> None:
    client = web()
    for address, headers in (("/", BROWSER), ("/static/0/main.js", {})):
        plain = await client.get(address, headers={**headers, "Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        async with client.stream("GET", address, headers={**headers, "Accept-Encoding": "br, gzip"}) as packed:
            raw = b"".join([part async for part in packed.aiter_raw()])
            assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == plain.content
        assert len(raw) < len(plain.content) / 2
        refused = await client.get(address, headers={**headers, "Accept-Encoding": "gzip;q=0"})
        assert "content-encoding" not in refused.headers


def test_all_that_a_visit_loads_is_light() -> None:
    """HTML, CSS and modules. The texts of another language, and what is on demand, come when they are asked for."""
    later, counted = ("on_demand/", "texts/zh.js"), (".html", ".css", ".js")
    sizes = [
        path.stat().st_size for name, path in FILES.items() if name.endswith(counted) and not name.startswith(later)
    ]
    assert sum(sizes) < MOST_BYTES


# Languages


@pytest.mark.parametrize(
    ("address", "headers", "language"),
    [
        ("/", {}, "en"),
        ("/", {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}, "zh"),
        ("/", {"Accept-Language": "en-GB,zh;q=0.9"}, "en"),
        ("/", {"Accept-Language": "fr, zh-TW;q=0.5, en;q=0.4"}, "zh"),
        ("/", {"Accept-Language": "fr;q=x"}, "en"),
        ("/", {"Accept-Language": "en", "Cookie": "theme=dark; lang=zh"}, "zh"),
        ("/?lang=en", {"Accept-Language": "zh", "Cookie": "lang=zh"}, "en"),
        ("/?lang=xx", {"Accept-Language": "zh"}, "zh"),
    ],
)
async def test_the_language_is_the_readers(web: Web, address: str, headers: dict[str, str], language: str) -> None:
    answer = await web().get(address, headers={**BROWSER, **headers})
    assert answer.headers["content-language"] == language
    assert f'data-t="serve">{texts(language)["serve"]}<' in answer.text


@pytest.mark.parametrize(("cookie", "theme"), [("theme=dark", "dark"), ('theme="><b>', "auto"), ("", "auto")])
async def test_the_colours_are_remembered(web: Web, cookie: str, theme: str) -> None:
    answer = await web().get("/", headers={**BROWSER, "Cookie": cookie})
    assert f'data-theme="{theme}"' in answer.text


def test_both_languages_say_the_same_things() -> None:
    english, chinese = texts("en"), texts("zh")
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key


def test_every_text_is_said_and_every_word_that_is_said_is_there() -> None:
    """Keys whose ends are made up at run time are named by their beginnings."""
    made_up = ("awake.", "examples.", "facts.", "kind.", "phase.", "problem.", "state.")
    source = "".join(path.read_text() for path in FILES.values() if path.name not in ("en.js", "zh.js"))
    source += "".join(path.read_text() for path in STATIC.parent.glob("*.py"))
    for key in texts("en"):
        assert f'"{key}"' in source or key.startswith(made_up) or f"\t{key}: " in source, key
    for key in re.findall(r'\bt\(\s*"([^"]+)"|data-t(?:-[a-z-]+)?="([\w.]+)"', source):
        assert "".join(key) in texts("en"), key


def test_every_problem_that_a_client_can_meet_is_a_sentence() -> None:
    for language in ("en", "zh"):
        missing = {kind.slug for kind in PROBLEM_TYPES} - {
            key.removeprefix("problem.") for key in texts(language) if key.startswith("problem.")
        }
        # What no form of this page can cause is told by its title.
        assert missing == {
            "malformed-request",
            "malformed-body",
            "previous-response-not-found",
            "malformed-event",
            "unsupported-media-type",
            "header-timeout",
            "header-too-large",
            "body-timeout",
            "method-not-allowed",
            "not-acceptable",
            "key-reused",
            "stalled",
        }


# The form


async def sent(client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **fields: str) -> httpx2.Response:
    return await client.post("/", data=fields, headers={**BROWSER, "Accept-Language": "en", **(headers or {})})


async def test_the_form_is_answered_with_a_whole_page(web: Web, seen: list[httpx2.Request]) -> None:
    answer = await sent(web(), prompt="写一首\r\n诗", model="novelist", seed="42", temperature="0.5", size="", steps="")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"]
    assert '<div class="text" dir="auto">春天</div>' in answer.text
    assert 'value="novelist" data-kind="text" checked' in answer.text
    assert 'value="42"' in answer.text
    assert seen[0].url.host == "novelist.test"
    request = json.loads(seen[0].content)
    assert (request["messages"][-1]["content"], request["seed"], request["temperature"]) == ("写一首\n诗", 42, 0.5)


async def test_the_forms_reasoning_is_folded_away(
    web: Web, stream: Callable[..., bytes], sse_answer: Callable[..., httpx2.Response]
) -> None:
    plain = stream("<hm>", "春").replace(b'"content": "<hm>"', b'"reasoning_content": "<hm>"')
    answer = await sent(web(lambda _request: sse_answer(plain)), prompt="x", model="poet")
    assert '<div class="thoughts" dir="auto">&lt;hm&gt;</div></details><div class="text" dir="auto">春<' in answer.text


async def test_the_forms_picture_is_in_the_page(web: Web) -> None:
    answer = await sent(web(), prompt="a cat", model="painter", steps="2", size="64x48")
    assert 'src="data:image/png;base64,' in answer.text
    assert 'width="64" height="48"' in answer.text


HOSTILE = "</textarea><script>alert(1)</script>\"'&${answer}${static}"


async def test_what_came_from_others_is_text(
    web: Web, stream: Callable[..., bytes], sse_answer: Callable[..., httpx2.Response]
) -> None:
    answer = await sent(web(lambda _request: sse_answer(stream(HOSTILE))), prompt=HOSTILE, seed='"><b>')
    assert "<b>" not in answer.text
    answer = await sent(web(lambda _request: sse_answer(stream(HOSTILE))), prompt=HOSTILE, model="poet")
    assert answer.status_code == 200
    assert "<script>" not in answer.text
    assert answer.text.count(html.escape(HOSTILE)) == 2  # as it was asked, and as it was answered


@pytest.mark.parametrize(
    ("fields", "kind", "sentence"),
    [
        ({}, problems.INVALID_FIELD, "The order needs a change. prompt: "),
        ({"prompt": " "}, problems.INVALID_FIELD, "The order needs a change. prompt: "),
        ({"prompt": "x", "seed": "much"}, problems.INVALID_FIELD, "The order needs a change. seed: "),
        ({"prompt": "x", "temperature": "9.5"}, problems.INVALID_FIELD, "needs a change. temperature: "),
        ({"prompt": "x", "steps": "3"}, problems.INVALID_FIELD, "needs a change. steps: "),
        ({"prompt": "x", "model": "nobody"}, problems.UNKNOWN_MODEL, "This model is no longer on the menu."),
    ],
)
async def test_what_is_wrong_is_a_sentence(
    web: Web, fields: dict[str, str], kind: problems.ProblemType, sentence: str
) -> None:
    answer = await sent(web(), None, size="", **fields)
    assert answer.status_code == kind.status
    [told] = re.findall(r'<p class="problem" role="alert">(.*?)</p>', answer.text)
    assert sentence in html.unescape(told)


async def test_when_to_come_again_is_told(web: Web, make_problem: Callable[..., httpx2.Response]) -> None:
    answer = await sent(web(lambda _request: make_problem()), headers={"Accept-Language": "zh"}, prompt="x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert "此刻座无虚席。 7 秒后可再试" in answer.text


@pytest.fixture
def make_problem() -> Callable[..., httpx2.Response]:
    def make() -> httpx2.Response:
        document: dict[str, Any] = {
            "type": problems.OVERLOADED.uri,
            "title": problems.OVERLOADED.title,
            "status": 503,
            "detail": "Full.",
            "retry_after": 7,
        }
        headers = {"Content-Type": problems.MEDIA_TYPE, "Retry-After": "7"}
        return httpx2.Response(503, json=document, headers=headers)

    return make


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://web.test"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://web.test"}, True),
        ({"Origin": "https://web.test"}, True),  # behind something that ends TLS
        ({"Origin": "http://evil.test"}, False),
        ({"Origin": "http://web.test:81"}, False),
        ({"Origin": "null"}, False),
        ({}, True),
    ],
)
async def test_other_sites_pages_may_not_send_it(
    web: Web, seen: list[httpx2.Request], headers: dict[str, str], taken: bool
) -> None:
    answer = await sent(web(), headers=headers, prompt="x")
    assert (answer.status_code, len(seen)) == ((200, 1) if taken else (403, 0))


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"prompt=x", "text/plain", 415),
        (b'{"prompt": "x"}', "application/json", 415),
        (b"prompt=\xff", "application/x-www-form-urlencoded", 400),
        (b"prompt=%FF", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=b" % index for index in range(99)), "application/x-www-form-urlencoded", 400),
        (b"prompt=x", "application/x-www-form-urlencoded; charset=UTF-8", 200),
    ],
)
async def test_other_bodies_are_refused(web: Web, body: bytes, media_type: str, status: int) -> None:
    answer = await web().post("/", content=body, headers={**BROWSER, "Content-Type": media_type})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")


async def test_the_limits_of_generating_hold_for_the_form(web: Web) -> None:
    too_large = await sent(web(body_bytes=20), prompt="x" * 20)
    assert too_large.status_code == 413
