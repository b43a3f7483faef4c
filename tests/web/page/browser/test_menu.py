"""What is known of the models: their cards, and a form within their limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[[Page, str], Awaitable[Any]]
FakeModel = Any  # of conftest.py


@pytest.fixture
def descriptions() -> dict[str, Any]:
    return {
        "poet": {"summary": {"en": "Verse.", "zh": "写诗。"}, "defaults": {"temperature": 0.75}},
        "painter": {
            "summary": {"en": "Small things."},
            "languages": ["zh", "en"],
            "examples": {"en": ["A red fox", "A boat"], "zh": ["狐狸"]},
            "vocabulary": {"en": ["fox", "boat", "moon"], "zh": ["狐狸", "船", "月亮"]},
            "refuses": ["negative_prompt"],
            "limits": {"steps": 20, "size": {"multiple": 8, "side": 128, "pixels": 8192}},
            "defaults": {"size": "64x64", "steps": 12, "guidance": 2.0},
        },
    }


async def choose(page: Page, model: str) -> None:
    await page.locator(f"[name=model][value={model}]").check()


async def test_each_row_says_what_its_model_is_for(url: str, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    await expect(page.locator(".summary")).to_have_text(["Verse.", "Small things."])
    await choose(page, "painter")
    await expect(page.locator("#about")).to_have_text("Chinese, English · 64 × 64 · 12 steps")
    await expect(page.locator("#examples button")).to_have_text(["A red fox", "A boat"])
    await shoot(page, "card")
    await page.locator("#language").click()
    await expect(page.locator(".summary")).to_have_text(["写诗。", "Small things."])
    await expect(page.locator("#about")).to_have_text("中文、英语 · 64 × 64 · 12 步")
    await expect(page.locator("#examples button")).to_have_text(["狐狸"])


async def test_the_server_says_it_without_scripts(url: str, visit: Open) -> None:
    page = await visit(url, java_script_enabled=False, locale="zh-CN")
    await expect(page.locator(".summary")).to_have_text(["写诗。", "Small things."])
    assert await page.locator("meta[name=description]").get_attribute("content")


async def test_what_is_known_is_not_sent_twice(url: str, visit: Open) -> None:
    page = await visit(url)
    async with page.expect_response("**/models") as first:
        await page.reload()
    async with page.expect_response("**/models") as second:
        await page.reload()
    tag = await (await first.value).header_value("etag")
    headers = await (await second.value).request.all_headers()
    assert tag
    assert headers["if-none-match"] == tag


async def test_examples_and_words_are_taken_by_a_click(
    url: str, painter: FakeModel, visit: Open, shoot: Shoot, axe: str
) -> None:
    page = await visit(url)
    await choose(page, "painter")
    await page.locator("#examples button").last.click()
    await expect(page.locator("#prompt")).to_have_value("A boat")
    await expect(page.locator("#known")).to_have_text("Knows 3 things")
    await page.locator("#known").click()
    await expect(page.locator("#vocabulary button")).to_have_text(["fox", "boat", "moon"])
    await shoot(page, "words")
    await page.locator("#vocabulary button").last.click()
    await expect(page.locator("#words")).to_be_hidden()
    await expect(page.locator("#prompt")).to_have_value("moon")
    assert painter.requests == []
    painter.paint()
    painter.finish_picture()
    await page.locator("#examples button").first.click(modifiers=["Shift"])
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    assert painter.requests[0]["prompt"] == "A red fox"


@pytest.mark.parametrize(
    ("language", "mistake"),
    [
        ("en-US", "Width and height: multiples of 8 up to 128, at most 8,192 pixels in all."),
        ("zh-CN", "宽高须为 8 的倍数，至多 128，总共至多 8,192 像素。"),
    ],
)
async def test_what_the_model_does_not_take_is_said_before_it_is_woken(
    url: str, painter: FakeModel, visit: Open, language: str, mistake: str
) -> None:
    page = await visit(url, locale=language)
    await choose(page, "painter")
    await page.locator(".options summary").click()
    size = page.locator("[name=size]")
    await expect(size).to_have_attribute("placeholder", "64x64")
    await expect(page.locator("[name=steps]")).to_have_attribute("placeholder", "12")
    await expect(page.locator("[name=negative_prompt]")).to_be_hidden()
    presets = await page.locator("#sizes option").evaluate_all("options => options.map(({value}) => value)")
    assert presets[0] == "64x64"
    assert {"72x56", "56x72"} <= set(presets)
    await page.locator("#prompt").fill("fox")
    await size.fill("512x512")
    await page.locator("#serve").click()
    await expect(size).to_be_focused()
    await expect(size).to_have_attribute("aria-invalid", "true")
    assert await size.evaluate("field => field.validationMessage") == mistake
    await size.fill("64x128")
    await expect(size).not_to_have_attribute("aria-invalid", "true")
    await page.locator("[name=steps]").fill("21")
    await page.locator("#serve").click()
    await expect(page.locator("[name=steps]")).to_be_focused()
    assert painter.requests == []


async def test_settings_are_kept_and_an_order_is_an_address(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, permissions=["clipboard-read", "clipboard-write"])
    await page.locator(".options summary").click()
    await page.locator("[name=temperature]").fill("0.5")
    await page.locator("[name=stop]").fill("。")
    poet.send("x", None)
    await page.locator("#prompt").fill("rain & 雨")
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    assert (poet.requests[0]["temperature"], poet.requests[0]["stop"]) == (0.5, ["。"])
    await page.locator("[data-act=share]").click()
    await expect(page.locator("#toast")).to_have_text("Link copied")
    address = await page.evaluate("navigator.clipboard.readText()")
    await page.reload()
    await expect(page.locator("[name=temperature]")).to_have_value("0.5")

    other = await visit(url)
    await other.goto(address)
    await expect(other.locator("#prompt")).to_have_value("rain & 雨")
    await expect(other.locator("[name=stop]")).to_have_value("。")
    assert int(await other.locator("[name=seed]").input_value()) == poet.requests[0]["seed"]
    await expect(other.locator("#stage")).to_have_attribute("data-state", "idle")
    assert len(poet.requests) == 1  # it is never run by itself


async def test_without_scripts_an_address_fills_the_form_too(url: str, painter: FakeModel, visit: Open) -> None:
    page = await visit(url, java_script_enabled=False)
    await page.goto(f"{url}/?prompt=a+fox&model=painter&seed=4&size=64x64")
    await expect(page.locator("#prompt")).to_have_value("a fox")
    await expect(page.locator("[value=painter]")).to_be_checked()
    assert painter.requests == []
    painter.paint()
    painter.finish_picture()
    await page.locator("#serve").click()
    await expect(page.locator(".answer img")).to_have_js_property("naturalWidth", 256)
    assert [painter.requests[0][name] for name in ("prompt", "seed", "size")] == ["a fox", 4, "64x64"]


async def test_without_scripts_what_is_wrong_is_told(url: str, painter: FakeModel, visit: Open) -> None:
    """Where the settings are folded, browsers would refuse to send it, and say nothing."""
    page = await visit(url, "400", java_script_enabled=False)
    await page.goto(f"{url}/?prompt=a+fox&model=painter&steps=21")
    await expect(page.locator("[name=steps]")).to_be_visible()  # opened, for there is something in it
    await expect(page.locator("[name=steps]")).to_have_attribute("max", "20")
    await page.locator(".options summary").click()
    await page.locator("#serve").click()
    await expect(page.locator(".answer")).to_contain_text("steps: must be at most 20")
    assert painter.requests == []


async def test_a_result_is_an_order_to_begin_with(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("x", None)
    await page.locator("#prompt").fill("rain")
    await page.locator("#serve").click()
    await expect(page.locator("#shelf li")).to_have_count(1)
    await choose(page, "painter")
    await page.locator("#prompt").fill("a draft")
    await page.locator("#shelf .open").click()
    await expect(page.locator("#prompt")).to_have_value("rain")
    await expect(page.locator("[name=model][value=poet]")).to_be_checked()
    assert int(await page.locator("[name=seed]").input_value()) == poet.requests[0]["seed"]
    await page.locator("#toast button").click()
    await expect(page.locator("#prompt")).to_have_value("a draft")
    await expect(page.locator("[name=model][value=painter]")).to_be_checked()


async def test_ready_is_asked_again(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, "ERR_")

    async def told(state: str) -> bool:
        await page.evaluate("dispatchEvent(new Event('focus'))")
        return await page.locator(".awake[data-model=poet]").text_content() == state

    poet.send("x", None)
    await page.locator("#prompt").fill("rain")
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await expect(page.locator("#notify")).to_have_count(1)  # what is loaded meanwhile is there
    for offline, state in ((False, "ready"), (True, ""), (False, "ready")):
        await page.context.set_offline(offline)
        await eventually(partial(told, state))


async def test_orders_wait_in_line(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    poet.send("one ")
    for prompt in ("first", "second", "third", "fourth"):
        await page.locator("#prompt").fill(prompt)
        await page.locator("#serve").click()
    await expect(page.locator("#line span")).to_have_text(["second", "third", "fourth"])
    await shoot(page, "line")
    await page.locator("#line button").nth(1).click()
    await expect(page.locator("#line span")).to_have_text(["second", "fourth"])
    await expect(page.locator("#text")).to_have_text("one ")
    await eventually(lambda: page.evaluate("JSON.parse(sessionStorage.getItem('line')).every(({id}) => id)"))
    await page.reload()
    await expect(page.locator("#line span")).to_have_text(["second", "fourth"])
    poet.send(None, "two", None, "four", None)
    await expect(page.locator("#shelf .prompt")).to_have_text(["fourth", "second", "first"])
    await expect(page.locator("#text")).to_have_text("four")
    assert [request["messages"][-1]["content"] for request in poet.requests] == ["first", "second", "fourth"]


async def test_no_order_is_left_behind_as_another_ends(url: str, poet: FakeModel, visit: Open) -> None:
    """What keeps the line is loaded with the second order, and the first may end meanwhile."""
    page = await visit(url)
    ended = asyncio.Event()

    async def hold(route: Route) -> None:
        await ended.wait()
        await route.continue_()

    await page.route("**/line.js", hold)
    for prompt in ("first", "second", "third"):
        await page.locator("#prompt").fill(prompt)
        await page.locator("#serve").click()
    poet.send("one", None)
    await expect(page.locator("#shelf li")).to_have_count(1)
    await eventually(lambda: page.evaluate('!("job" in sessionStorage)'))
    ended.set()
    poet.send("two", None, "three", None)
    await expect(page.locator("#shelf .prompt")).to_have_text(["third", "second", "first"])


async def test_a_result_is_not_opened_over_an_order_that_is_made(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("x", None)
    await page.locator("#prompt").fill("rain")
    await page.locator("#serve").click()
    await expect(page.locator("#shelf li")).to_have_count(1)
    await page.locator("#serve").click()
    await eventually(lambda: poet.running == 1)
    await page.locator("#shelf .open").click()
    await expect(page.locator("#toast")).to_have_text("An order is being made: stop it, or wait.")
    poet.send(None)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")


async def test_it_can_be_installed(url: str, visit: Open) -> None:
    page = await visit(url)
    cdp = await page.context.new_cdp_session(page)
    manifest = await cdp.send("Page.getAppManifest")
    assert (manifest["errors"], manifest["manifest"]["startUrl"]) == ([], f"{url}/")
