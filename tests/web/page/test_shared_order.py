"""`/?prompt=…`, which fills the form of a browser without scripts, and what that form knows of the models."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from web.page.template import PageTemplate

Web = Callable[..., httpx2.AsyncClient]
BROWSER = {"Accept": "text/html", "Accept-Language": "en"}
HOSTILE = "</textarea><script>alert(1)</script>\"'&${answer}${static}"


async def shown(client: httpx2.AsyncClient, query: str = "", **fields: str) -> httpx2.Response:
    return await client.get(f"/?{query or urlencode(fields)}", headers=BROWSER)


def prompt(page: httpx2.Response) -> str:
    [written] = re.findall(r"<textarea [^>]*>\n(.*?)</textarea>", page.text, re.DOTALL)
    return html.unescape(written)


def chosen(page: httpx2.Response) -> list[str]:
    return re.findall(r'value="(\w+)" data-kind="\w+" checked', page.text)


def attributes(page: httpx2.Response, name: str) -> dict[str, str]:
    [written] = re.findall(rf'<input name="{name}"([^>]*)>', page.text)
    return {key: html.unescape(value) for key, value in re.findall(r'([\w-]+)="([^"]*)"', written)}


async def test_an_address_fills_the_form_and_runs_nothing(web: Web, seen: list[httpx2.Request]) -> None:
    page = await shown(web(), prompt="rain &\r\n雨", model="novelist", seed="42", temperature="0.5", stop="。")
    assert (page.status_code, prompt(page)) == (200, "rain &\n雨")
    assert chosen(page) == ["novelist"]
    found = {name: attributes(page, name)["value"] for name in ("seed", "temperature", "stop", "steps")}
    assert found == {"seed": "42", "temperature": "0.5", "stop": "。", "steps": ""}
    assert 'id="idle" >' in page.text
    assert seen == []


async def test_what_the_form_has_no_place_for_is_left_out(web: Web) -> None:
    client = web()
    page = await shown(client, prompt="x", answer="<b>", static="<b>", models="<b>", previews="4")
    assert (prompt(page), page.text) == ("x", (await shown(client, prompt="x")).text)
    assert chosen(await shown(client, prompt="x", model="nobody")) == ["poet"]


async def test_an_address_of_others_is_text(web: Web) -> None:
    names = ("prompt", "model", "seed", "size", "stop", "negative_prompt")
    page = await shown(web(), **dict.fromkeys(names, HOSTILE))
    assert prompt(page) == HOSTILE
    assert {attributes(page, name)["value"] for name in names[2:]} == {HOSTILE}
    assert "<script>" not in page.text


@pytest.mark.parametrize(
    "query",
    [
        "seed=4",
        "prompt=",
        "prompt=%FF",
        "&".join(["prompt=x", *(f"a{number}=b" for number in range(99))]),
        "prompt=" + "x" * 21,
    ],
    ids=["no prompt", "an empty one", "no UTF-8", "too many fields", "a prompt that is too long"],
)
async def test_an_address_that_asks_for_nothing_shows_the_empty_page(web: Web, query: str) -> None:
    client = web(max_prompt_chars=20)
    assert (await shown(client, query)).text == (await client.get("/", headers=BROWSER)).text


async def test_no_value_is_longer_than_a_prompt(web: Web) -> None:
    page = await shown(web(max_prompt_chars=20), prompt="x" * 20, stop="y" * 20, seed="1" * 21)
    assert (prompt(page), attributes(page, "stop")["value"], attributes(page, "seed")["value"]) == (
        "x" * 20,
        "y" * 20,
        "",
    )


async def test_a_filled_form_is_not_kept_by_the_server(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[Any] = []
    render = PageTemplate.render

    def note(*given: Any) -> bytes:
        rendered.append(given)
        return render(*given)

    monkeypatch.setattr(PageTemplate, "render", note)
    client = web()
    first, again = await shown(client, prompt="x"), await shown(client, prompt="x")
    assert (first.text, len(rendered)) == (again.text, 2)
    empty = [await shown(client), await shown(client)]
    assert [prompt(page) for page in empty] == ["", ""]
    assert len(rendered) == 3


async def test_browsers_ask_for_it_again_and_may_have_it_packed(web: Web) -> None:
    client = web()
    page = await shown(client, prompt="x")
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["content-encoding"] == "gzip"
    again = await client.get("/?prompt=x", headers={**BROWSER, "If-None-Match": page.headers["etag"]})
    assert again.status_code == 304
    other = await client.get("/?prompt=y", headers={**BROWSER, "If-None-Match": page.headers["etag"]})
    assert other.status_code == 200


async def test_the_other_language_keeps_it(web: Web) -> None:
    client = web()
    page = await shown(client, prompt="rain & 雨", seed="4")
    [address] = re.findall(r'id="language" [^>]*href="([^"]*)"', page.text)
    other = await client.get(f"/{html.unescape(address)}", headers=BROWSER)
    assert other.headers["content-language"] == "zh"
    assert (prompt(other), attributes(other, "seed")["value"]) == ("rain & 雨", "4")


async def test_programs_are_told_what_they_were(web: Web) -> None:
    client = web()
    assert (await client.get("/?prompt=x")).json() == (await client.get("/")).json()


# What is known of the models

STEPS, FEW = {"limits": {"steps": 20}, "defaults": {"steps": 8}}, {"limits": {"steps": 20}, "defaults": {"steps": 4}}
UNKNOWN: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("descriptions", "most", "usual"),
    [
        ([STEPS], "20", "8"),
        ([STEPS, STEPS], "20", "8"),
        ([STEPS, FEW], "20", None),
        ([STEPS, UNKNOWN], "200", None),
        ([UNKNOWN], "200", None),
    ],
)
async def test_what_all_models_of_a_kind_agree_on_is_in_the_form(
    web: Web, descriptions: list[Any], most: str, usual: str | None
) -> None:
    models: dict[str, Any] = {
        f"painter-{number}": {"url": "http://painter.test", "kind": "image", "description": description}
        for number, description in enumerate(descriptions)
    }
    poet = {"url": "http://poet.test", "description": {"defaults": {"temperature": 0.75, "steps": 3}}}
    page = await shown(web(models={"poet": poet, **models}))
    steps, temperature = attributes(page, "steps"), attributes(page, "temperature")
    assert (steps["max"], steps.get("placeholder")) == (most, usual)
    assert (temperature["max"], temperature.get("placeholder")) == ("2", "0.75")
    assert attributes(page, "guidance").get("placeholder") is None
