"""The results of a browser: two hundred of them, in several tabs, by keyboard, and where nothing may be kept."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.support.waiting import eventually
from tests.support.web.page import fill

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py

IN_SIGHT = """() => [...document.querySelectorAll("#shelf img")].filter((image) => {
  const {top, bottom} = image.closest("li").getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}).map(({naturalWidth}) => naturalWidth)"""


async def filled(visit: Open, url: str, count: int) -> Page:
    page = await visit(url)
    await fill(page, count)
    await page.reload()
    await expect(page.locator("#shelf li")).to_have_count(count)
    return page


async def test_pictures_that_were_scrolled_away_come_back(url: str, visit: Open) -> None:
    page = await filled(visit, url, 60)

    async def shown() -> bool:
        widths = await page.evaluate(IN_SIGHT)
        return len(widths) > 2 and all(widths)

    for target in ("first", "last", "first"):
        card = page.locator("#shelf li")
        await getattr(card, target).evaluate("card => card.scrollIntoView({behavior: 'instant'})")
        await eventually(shown, f"the pictures near the {target} card")
    far = page.locator("#shelf li").last.locator("img")
    assert await far.get_attribute("src") is None  # and those out of sight take no memory


async def test_tab_stops_once_and_arrows_lead_on(url: str, visit: Open) -> None:
    page = await filled(visit, url, 30)
    assert await page.locator("#shelf button:not([tabindex='-1'])").count() == 6
    await page.locator("#shelf .open").first.focus()
    for key, prompt in (("ArrowRight", "28"), ("ArrowRight", "27"), ("ArrowLeft", "28"), ("End", "0"), ("Home", "29")):
        await page.keyboard.press(key)
        assert await page.evaluate("document.activeElement.querySelector('.prompt').textContent") == f"number {prompt}"
    await page.keyboard.press("ArrowDown")
    below = await page.evaluate("document.activeElement.querySelector('.prompt').textContent")
    assert below == f"number {29 - len((await columns(page)).split())}"
    assert await page.locator("#shelf button:not([tabindex='-1'])").count() == 6


async def columns(page: Page) -> str:
    found: str = await page.evaluate("getComputedStyle(document.getElementById('shelf')).gridTemplateColumns")
    return found


async def test_what_is_removed_is_brought_back_to_its_place(url: str, visit: Open) -> None:
    page = await filled(visit, url, 3)
    await page.locator("#shelf [data-act=remove]").nth(1).click()
    await expect(page.locator("#shelf .prompt")).to_have_text(["number 2", "number 0"])
    await page.locator("#toast button").click()
    await expect(page.locator("#shelf .prompt")).to_have_text(["number 2", "number 1", "number 0"])
    await page.reload()
    await expect(page.locator("#shelf .prompt")).to_have_text(["number 2", "number 1", "number 0"])


async def test_other_tabs_show_what_this_one_keeps(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    other = await page.context.new_page()
    await other.goto(url)
    poet.send("x", None)
    await page.locator("#prompt").fill("rain")
    await page.locator("#serve").click()
    await expect(page.locator("#shelf li")).to_have_count(1)
    await expect(other.locator("#shelf .prompt")).to_have_text(["rain"])
    await other.locator("[data-act=remove]").click()
    await expect(page.locator("#shelf li")).to_have_count(0)


async def test_what_was_asked_from_far_below_is_seen(
    url: str, poet: FakeModel, painter: FakeModel, visit: Open
) -> None:
    page = await filled(visit, url, 60)
    last = page.locator("#shelf [data-act=again]").last
    await last.scroll_into_view_if_needed()
    painter.paint()
    await last.click()
    await expect(page.locator("#stage")).to_be_in_viewport(ratio=0.5)
    await expect(page.locator("#stop")).to_be_focused()
    painter.finish_picture()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")


async def test_favourites_are_found_and_never_forgotten(url: str, visit: Open) -> None:
    page = await filled(visit, url, 200)
    await page.locator("#shelf [data-act=star]").last.click()
    await expect(page.locator("#shelf [data-act=star]").last).to_have_attribute("aria-pressed", "true")
    await fill(page, 3, name="new")
    await page.reload()
    await expect(page.locator("#shelf li")).to_have_count(200)
    await page.locator("#starred").click()
    await expect(page.locator("#shelf li:visible .prompt")).to_have_text(["number 0"])
    await page.locator("#starred").click()
    await page.locator("#search").fill("number 19")
    await expect(page.locator("#shelf li:visible")).to_have_count(12)  # with 119 and 190 to 199
    await expect(page.locator("#count")).to_have_text("12 of 200")


async def test_all_are_downloaded_in_one_archive(url: str, poet: FakeModel, visit: Open) -> None:
    page = await filled(visit, url, 2)
    poet.send("春雨", None)
    await page.locator("#prompt").fill("rain")
    await page.locator("#serve").click()
    await expect(page.locator("#shelf li")).to_have_count(3)
    async with page.expect_download() as waiting:
        await page.locator("#download-all").click()
    download = await waiting.value
    assert download.suggested_filename == "shangcai.zip"
    with zipfile.ZipFile(await download.path()) as archive:
        assert archive.testzip() is None
        poem, *pictures = archive.namelist()
        assert pictures == ["painter-1.png", "painter-1_2.png"]
        assert archive.read(poem).decode() == "春雨"
        assert archive.read(pictures[0]).startswith(b"\x89PNG")


async def test_the_full_view_is_left_and_right_by_arrow_keys(url: str, poet: FakeModel, visit: Open, axe: str) -> None:
    page = await filled(visit, url, 3)
    await page.locator("#shelf .open").first.click()
    await page.locator("[data-act=view]").click()
    viewer = page.locator(".viewer")
    await expect(viewer.locator("figcaption")).to_have_text("number 2 · painter · seed 1")
    await page.keyboard.press("ArrowRight")
    await expect(viewer.locator("figcaption")).to_have_text("number 1 · painter · seed 1")
    await expect(viewer.locator("img")).to_have_js_property("complete", True)
    await page.evaluate(axe)
    found = await page.evaluate("axe.run(document.querySelector('.viewer'), {resultTypes: ['violations']})")
    assert [each["id"] for each in found["violations"] if each["impact"] in ("serious", "critical")] == []
    await viewer.locator("button", has_text="Compare").click()
    await expect(viewer.locator("figcaption")).to_have_text(
        ["number 1 · painter · seed 1", "number 0 · painter · seed 1"]
    )
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowLeft")
    await expect(viewer.locator("figcaption")).to_have_text(
        ["number 1 · painter · seed 1", "number 2 · painter · seed 1"]
    )
    await page.keyboard.press("Escape")
    await expect(viewer).to_be_hidden()


async def test_where_the_browser_keeps_nothing(url: str, chromium: str, poet: FakeModel, tmp_path: Path) -> None:
    """Chromium's own setting: no site may keep anything."""
    (tmp_path / "Default").mkdir()
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(blocked))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path, executable_path=chromium, args=["--no-sandbox"], locale="en-US"
        )
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(url)
        thrown = await page.evaluate(
            "() => { try { sessionStorage; return null; } catch (error) { return error.name; } }"
        )
        assert thrown == "SecurityError"
        poet.send("x", None, "y", None)
        for text in ("x", "y"):
            await page.locator("#prompt").fill("rain")
            await page.locator("#serve").click()
            await expect(page.locator("#text")).to_have_text(text)
            await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
        await expect(page.locator("#shelf li")).to_have_count(2)
        await page.locator("#theme").click()
        await page.locator("#language").click()
        await expect(page.locator("#serve")).to_have_text("上菜")
        assert errors == []
        await context.close()
