"""Where the server wants a key, the page asks for it once, keeps it, sends it, and forgets it when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.support.waiting import eventually
from tests.support.web.page import check_access, order
from web.callers import key_file
from web.callers.key_file import entry

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[..., Awaitable[Path]]
FakeModel = Any  # of conftest.py

KEY = "shangcai_a-key-of-the-tests"
REFUSED = "401 (Unauthorized)"  # what the console says of each


@pytest.fixture
def callers_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(key_file, "CHECK_SECONDS", 0.0)
    path = tmp_path / "callers"
    path.write_text(entry("alice", KEY))
    return path


@pytest.fixture
def settings(callers_file: Path) -> dict[str, Any]:
    return {"callers": "keys", "callers_file": callers_file, "callers_secret": "a secret of the tests"}


def door(page: Page) -> Locator:
    return page.locator("#door")


async def give(page: Page, key: str) -> None:
    await page.locator("#key").fill(key)
    await page.locator("#key").press("Enter")


async def is_let_in(page: Page, key: str) -> None:
    """By a key, which the page keeps a moment after the door has closed."""
    await give(page, key)
    await expect(door(page)).to_be_hidden()
    await eventually(partial(keeps, page, key), "the key is kept")


async def keeps(page: Page, key: str) -> bool:
    return bool(await page.evaluate("localStorage.getItem('key')") == key)


async def test_the_key_is_asked_for_once_and_kept(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, REFUSED)
    await expect(door(page)).to_be_visible()
    await is_let_in(page, KEY)
    poet.send("春天", None)
    await order(page, "春")
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await expect(page.locator("#text")).to_have_text("春天")
    await page.locator("#code summary").click()
    await expect(page.locator("#snippet")).to_contain_text("Bearer $KEY")
    assert KEY not in await page.content()
    await page.reload()
    poet.send("夏天", None)
    await order(page, "夏")
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await expect(door(page)).to_be_hidden()


async def test_what_no_header_may_have_is_not_taken_for_a_key(url: str, visit: Open) -> None:
    page = await visit(url, REFUSED)
    await give(page, "ключ")
    await expect(page.locator("#key:invalid")).to_be_visible()
    await give(page, f" {KEY} ")
    await eventually(partial(keeps, page, KEY), "the key is kept")
    await expect(door(page)).to_be_hidden()


async def test_a_wrong_key_is_told_and_forgotten_when_asked(url: str, visit: Open) -> None:
    page = await visit(url, REFUSED)
    await give(page, "wrong")
    await expect(page.locator("#door-why")).to_contain_text("This key is not valid here")
    await is_let_in(page, KEY)
    await page.locator("#forget").click()
    await expect(page.locator("#forget")).to_be_hidden()
    await expect(page.locator("footer a")).to_be_focused()  # beside it
    assert await page.evaluate("localStorage.length") == 0
    await page.reload()
    await expect(door(page)).to_be_visible()


async def test_a_key_that_is_taken_away_is_asked_for_anew(
    url: str, poet: FakeModel, visit: Open, callers_file: Path
) -> None:
    page = await visit(url, REFUSED)
    await is_let_in(page, KEY)
    await asyncio.to_thread(callers_file.write_text, entry("alice", "another key"))
    poet.send("秋天", None)
    await page.locator("#prompt").fill("秋")  # which wakes the model
    await expect(page.locator("#door-why")).to_contain_text("This key is not valid here")
    await is_let_in(page, "another key")
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")


async def test_an_order_goes_on_without_a_key_and_is_found_with_one(
    url: str, poet: FakeModel, visit: Open, callers_file: Path
) -> None:
    page = await visit(url, REFUSED)
    await is_let_in(page, KEY)
    poet.send("东风")
    await order(page, "东风")
    await expect(page.locator("#text")).to_have_text("东风")
    await asyncio.to_thread(callers_file.write_text, entry("bob", "a key of bob"))
    await page.reload()
    await expect(page.locator("#door-why")).to_contain_text("This key is not valid here")
    await page.keyboard.press("Escape")
    await expect(page.locator("#problem")).to_contain_text("wants a key")
    await asyncio.to_thread(callers_file.write_text, entry("alice", KEY))
    await page.reload()
    poet.send("已绿", None)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await expect(page.locator("#text")).to_have_text("东风已绿")


async def test_who_has_no_key_is_asked_again_only_when_ordering(url: str, visit: Open) -> None:
    page = await visit(url, REFUSED)
    await expect(door(page)).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(door(page)).to_be_hidden()
    async with page.expect_response("**/warm"):
        await page.locator("#prompt").fill("春")  # which wakes the model
    await expect(door(page)).to_be_hidden()
    await page.locator("#serve").click()
    await expect(door(page)).to_be_visible()
    await page.locator("#door-no").click()
    await expect(page.locator("#problem")).to_contain_text("wants a key")


async def test_a_browser_that_keeps_nothing_has_the_key_until_it_leaves(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, REFUSED)
    await page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }})")
    await page.reload()
    await give(page, KEY)
    await expect(page.locator("#forget")).to_be_visible()
    poet.send("冬天", None)
    await order(page, "冬")
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
async def test_how_it_looks(url: str, visit: Open, shoot: Shoot, axe: str, locale: str, theme: str) -> None:
    for name, size in {"wide": (1280, 900), "phone": (390, 844)}.items():
        viewport = {"width": size[0], "height": size[1]}
        page = await visit(url, REFUSED, locale=locale, color_scheme=theme, viewport=viewport)
        await expect(page.locator("#door-title")).to_have_text(
            {"en-GB": "Your key, please", "zh-CN": "请出示密钥"}[locale]
        )
        await expect(page.locator("#key")).to_be_focused()
        await check_access(page, axe)
        await shoot(page, f"key-{locale}-{name}-{theme}", full_page=False)
        await give(page, KEY)
        await expect(page.locator("#forget")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
