"""What axe-core finds in the states and dialogs that one gets to on the way, in both colours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from contract import ProblemError, problems
from tests.support.web.page import check_access, fill, order

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("theme", ["light", "dark"]),
]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py


@pytest.fixture
def descriptions() -> dict[str, Any]:
    return {"poet": {"conversations": True}, "painter": {"vocabulary": {"en": ["fox", "boat", "moon"]}}}


async def test_waking(url: str, poet: FakeModel, visit: Open, axe: str, theme: str) -> None:
    page = await visit(url, color_scheme=theme)
    poet.phase, poet.seconds = "loading the weights", 2.0
    await order(page, "rain")
    await expect(page.locator("[data-course=waking]")).to_have_class("now")
    await expect(page.locator("#bar")).to_be_visible()
    await expect(page.locator(".awake[data-model=poet]")).to_have_text("waking")
    await check_access(page, axe)
    poet.phase = None
    poet.send(None)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")


async def test_failed(url: str, poet: FakeModel, visit: Open, axe: str, theme: str) -> None:
    page = await visit(url, color_scheme=theme)
    poet.problem = ProblemError(problems.CONTENT_FILTERED, "No.")
    await order(page, "rain")
    await expect(page.locator("#retry")).to_be_enabled()
    await expect(page.locator("#problem")).to_be_visible()
    await check_access(page, axe)


async def test_two_beside_each_other(url: str, visit: Open, axe: str, theme: str) -> None:
    page = await visit(url, color_scheme=theme)
    await fill(page, 3, texts=True)
    await page.reload()
    await page.locator("#shelf .open").first.click()
    await page.locator("[data-act=view]").click()
    await page.locator(".viewer button", has_text="Compare").click()
    await expect(page.locator(".viewer img")).to_have_count(1)
    await expect(page.locator(".viewer .text")).to_have_count(1)
    await check_access(page, axe)
    await page.keyboard.press("ArrowRight")  # to the last one, from where nothing leads on
    await expect(page.locator(".viewer img")).to_have_count(2)
    await check_access(page, axe)


async def test_a_conversation(url: str, poet: FakeModel, visit: Open, axe: str, theme: str) -> None:
    page = await visit(url, color_scheme=theme)
    poet.send("drop", None)
    await order(page, "rain")
    await page.locator("#reply").click()
    await expect(page.locator("#talk")).to_be_visible()
    poet.send("drip", None)
    await order(page, "more")
    await expect(page.locator("#turns > div")).to_have_count(3)
    await expect(page.locator("#answer")).to_have_text("drip")
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await check_access(page, axe)


async def test_words_to_choose_from(url: str, visit: Open, axe: str, theme: str) -> None:
    page = await visit(url, color_scheme=theme)
    await page.locator("[name=model][value=painter]").check()
    await page.locator("#known").click()
    await expect(page.locator("#vocabulary button")).to_have_count(3)
    await check_access(page, axe)
