"""Whoever has only a keyboard gets everywhere, in few keys, and is never lost on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from contract import ProblemError, problems
from tests.support.waiting import eventually
from tests.support.web.page import fill, focused, lost, tab_to, watch_focus

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py

CARD = "document.activeElement.closest('li')?.querySelector('.prompt').textContent"
WALK = (
    ("ArrowRight", "number 1"),
    ("ArrowRight", "number 0"),
    ("ArrowRight", "number 0"),
    ("ArrowLeft", "number 1"),
    ("ArrowLeft", "a red fox"),
    ("ArrowLeft", "a red fox"),
)


async def opened(visit: Open, url: str, results: int = 0, *complaints: str) -> Page:
    """A page whose focus is watched, with some results."""
    page = await visit(url, *complaints)
    if results:
        await fill(page, results)
        await page.reload()
        await expect(page.locator("#shelf li")).to_have_count(results)
    await watch_focus(page)
    return page


async def write(page: Page, prompt: str) -> None:
    await tab_to(page, "prompt")
    await page.keyboard.type(prompt)


async def use(page: Page, name: str, key: str = "Tab", most: int = 25) -> None:
    """Go to a button and press it."""
    await tab_to(page, name, key, most)
    await page.keyboard.press("Enter")


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)


async def served(page: Page) -> None:
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await expect(page.locator("#actions button").first).to_be_visible()  # their visibility has a transition


async def test_by_keyboard_only(url: str, poet: FakeModel, visit: Open) -> None:
    page = await opened(visit, url)
    await tab_to(page, "model")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("[value=painter]")).to_be_checked()
    await page.keyboard.press("ArrowUp")
    poet.send("drip ")
    await write(page, "rain")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#text")).to_have_text("drip ")
    await use(page, "stop")
    await expect(page.locator("#status")).to_have_text("Stopped.")
    assert await focused(page) == "serve"  # the button is gone, and nobody is lost
    await eventually(lambda: poet.running == 0)
    poet.send("drop", None)
    await page.keyboard.press("Enter")
    await expect(page.locator("#shelf li")).to_have_count(1)
    await use(page, "open")
    await expect(page.locator("#text")).to_have_text("drop")
    await use(page, "remove", most=5)
    await expect(page.locator("#shelf li")).to_have_count(0)
    assert await focused(page) == "serve"
    assert await lost(page) == []


async def test_four_pictures_from_the_menu_to_the_full_view(url: str, painter: FakeModel, visit: Open) -> None:
    page = await opened(visit, url, 2)
    await tab_to(page, "model")
    await page.keyboard.press("ArrowDown")
    await write(page, "a red fox")
    await use(page, "summary")
    await tab_to(page, "n")
    painter.paint()
    await press(page, "4", "Control+Enter")
    await expect(page.locator("#bar")).to_have_attribute("aria-valuenow", "100")
    painter.finish_picture(4)
    await served(page)
    await expect(page.locator("#pictures img:not(.old)")).to_have_count(4)
    assert [request["n"] for request in painter.requests] == [4]

    await use(page, "view")
    viewer = page.locator(".viewer")
    await expect(viewer.locator("img")).to_have_count(4)
    caption = viewer.locator("figcaption")
    for key, seen in WALK:
        await page.keyboard.press(key)
        await expect(caption).to_contain_text(seen)
    await tab_to(page, "image", "Shift+Tab", most=3)  # what is seen, to scroll it; and arrow keys lead on from there
    for key, seen in WALK:
        await page.keyboard.press(key)
        await expect(caption).to_contain_text(seen)
    await page.keyboard.press("Escape")
    await expect(viewer).to_be_hidden()
    assert await focused(page) == "view"
    assert await lost(page) == []


async def test_two_hundred_results_are_one_stop(url: str, visit: Open) -> None:
    page = await opened(visit, url, 200)
    cards = page.locator("#shelf li")
    await tab_to(page, "open", most=15)
    for key, prompt in (("End", "number 0"), ("Home", "number 199"), ("End", "number 0")):
        await page.keyboard.press(key)
        assert await page.evaluate(CARD) == prompt
    await page.keyboard.press("Enter")
    await expect(page.locator("#asked")).to_have_text("number 0")
    assert await page.evaluate(CARD) == "number 0"
    await use(page, "star", most=1)
    star = cards.last.locator("[data-act=star]")
    await expect(star).to_have_attribute("aria-pressed", "true")
    await use(page, "remove", most=4)
    await expect(cards).to_have_count(199)
    assert await page.evaluate(CARD) == "number 1"
    await tab_to(page, "button", most=8)  # in the message that one was removed
    await page.keyboard.press("Enter")
    await expect(cards).to_have_count(200)
    await expect(star).to_have_attribute("aria-pressed", "true")
    assert await page.evaluate(CARD) == "number 1"  # where one was

    await tab_to(page, "search", "Shift+Tab", most=5)
    await page.keyboard.type("number 77")
    await expect(page.locator("#shelf li:visible")).to_have_count(2)  # with 177
    await tab_to(page, "open", most=4)
    assert await page.evaluate(CARD) == "number 177"
    await use(page, "remove", most=5)
    await expect(page.locator("#shelf li:visible")).to_have_count(1)
    assert await page.evaluate(CARD) == "number 77"
    await tab_to(page, "search", "Shift+Tab", most=5)
    await press(page, "Control+a", "Delete")
    await expect(page.locator("#shelf li:visible")).to_have_count(199)

    await tab_to(page, "open", most=4)
    await press(page, "End", "Home")
    assert await page.evaluate(CARD) == "number 199"
    await tab_to(page, "language", "Shift+Tab", most=30)
    assert await lost(page) == []


@pytest.mark.parametrize("stops", [False, True], ids=["waits", "stops"])
async def test_offline_and_back(url: str, poet: FakeModel, visit: Open, stops: bool) -> None:
    page = await opened(visit, url, 0, "ERR_")
    poet.send("one ")
    await write(page, "count")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#text")).to_have_text("one ")
    cdp = await page.context.new_cdp_session(page)
    await page.context.set_offline(True)
    await cdp.send("Page.stopLoading")
    await expect(page.locator("#status")).to_have_text("The connection is lost. Trying again…")
    assert await focused(page) == "prompt"
    await tab_to(page, "stop")
    if stops:
        await page.keyboard.press("Enter")
        await expect(page.locator("#status")).to_have_text("Stopping… The connection is lost. Trying again…")
    assert await focused(page) == "stop"
    poet.send("two")
    await page.context.set_offline(False)
    if stops:
        await expect(page.locator("#status")).to_have_text("Stopped.")
        await eventually(lambda: poet.running == 0)
    else:
        await expect(page.locator("#text")).to_have_text("one two")
        assert await focused(page) == "stop"
        poet.send(None)
        await served(page)
        await expect(page.locator("#shelf .prompt")).to_have_text(["count"])
    assert len(poet.requests) == 1
    assert await focused(page) == "serve"
    assert await lost(page) == []


async def test_who_asks_again_is_led_to_what_comes(url: str, poet: FakeModel, visit: Open) -> None:
    """The buttons for that go when it begins."""
    page = await opened(visit, url)
    poet.problem = ProblemError(problems.CONTENT_FILTERED, "No.")
    await write(page, "rain")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#retry")).to_be_visible()
    poet.problem = None
    for button in ("retry", "another"):
        await use(page, button)
        await eventually(lambda: poet.running == 1)
        assert await focused(page) == "stop"
        poet.send("x", None)
        await served(page)
        assert await focused(page) == "serve"
    assert await lost(page) == []


async def in_line(page: Page, poet: FakeModel, *prompts: str) -> None:
    """Order that much, of which the first is made."""
    await tab_to(page, "prompt")
    for prompt in prompts:
        await press(page, "Control+a", *prompt, "Control+Enter")
        await eventually(lambda: poet.running == 1)
    await expect(page.locator("#line span")).to_have_text(prompts[1:])
    await eventually(lambda: page.evaluate("JSON.parse(sessionStorage.getItem('line')).every(({id}) => id)"))


async def test_an_order_whose_turn_comes_takes_nobody_away(url: str, poet: FakeModel, visit: Open) -> None:
    page = await opened(visit, url, 3)
    await in_line(page, poet, "first", "second")
    await tab_to(page, "search")
    await page.keyboard.type("num")
    poet.send("x", None)
    await expect(page.locator("#line span")).to_have_count(0)
    await expect(page.locator("#asked")).to_have_text("second")
    await page.keyboard.type("ber")
    await expect(page.locator("#search")).to_have_value("number")
    poet.send("y", None)
    await served(page)
    assert await lost(page) == []


async def test_an_order_leaves_the_line_and_another_is_left(url: str, poet: FakeModel, visit: Open) -> None:
    page = await opened(visit, url)
    await in_line(page, poet, "a", "b", "c", "d")
    await tab_to(page, "serve")
    await tab_to(page, "button", most=1)
    poet.send("x", None)
    await expect(page.locator("#line span")).to_have_text(["c", "d"])
    assert await focused(page) == "button"
    await page.keyboard.press("Enter")
    await expect(page.locator("#line span")).to_have_text(["d"])
    await page.keyboard.press("Enter")
    await expect(page.locator("#line span")).to_have_count(0)
    assert await focused(page) == "serve"
    poet.send("y", None)
    await served(page)
    assert await lost(page) == []


async def test_the_oldest_result_goes_and_nobody_with_it(url: str, poet: FakeModel, visit: Open) -> None:
    page = await opened(visit, url, 200)
    await write(page, "one more")
    await page.keyboard.press("Control+Enter")
    await eventually(lambda: poet.running == 1)
    await tab_to(page, "open")
    await page.keyboard.press("End")
    assert await page.evaluate(CARD) == "number 0"
    poet.send("x", None)
    await expect(page.locator("#shelf .prompt").first).to_have_text("one more")
    assert await page.evaluate(CARD) == "number 1"
    assert await lost(page) == []


async def test_who_wants_to_be_told_goes_on_at_stop(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    await page.add_init_script(
        """Object.defineProperty(Notification, "permission", {get: () => "default"});
        Notification.requestPermission = async () => "denied";"""
    )
    await page.reload()
    await watch_focus(page)
    await write(page, "rain")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#notify")).to_be_visible()  # after some seconds
    await use(page, "notify")
    assert await focused(page) == "stop"
    poet.send("x", None)
    await served(page)
    assert await focused(page) == "serve"
    assert await lost(page) == []


async def test_examples_are_left_to_whoever_is_there(url: str, poet: FakeModel, visit: Open) -> None:
    """Also when a result has come, and the model is asked what it is."""
    page = await opened(visit, url)
    await write(page, "rain")
    await page.keyboard.press("Control+Enter")
    await tab_to(page, "button", most=1)
    async with page.expect_response("**/models"):
        poet.send("x", None)
    await expect(page.locator("#shelf li")).to_have_count(1)
    assert await focused(page) == "button"
    assert await lost(page) == []
