"""The whole stack: the page, web, the poet and the painter."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.support.run import DEADLINE, Run
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[..., Awaitable[Path]]


@pytest.fixture(scope="module")
def stack() -> Iterator[str]:
    """scripts/run, once it serves; its models fall asleep soon."""
    with closing(Run("--idle", "3")) as run:
        run.wait_until_ready()
        yield run.url


async def is_asleep(page: Page, model: str) -> bool:
    """What the page says when it is loaded."""
    await page.reload()
    return await page.locator(f".awake[data-model={model}]").text_content() == "asleep"


async def test_a_poem_and_a_picture_from_models_that_were_asleep(stack: str, visit: Open, shoot: Shoot) -> None:
    page = await visit(stack)
    for model in ("poet", "painter"):
        await eventually(partial(is_asleep, page, model), f"{model} is asleep", DEADLINE)
    await page.locator("#prompt").fill("写一首关于春雨的诗")
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "waking")
    await expect(page.locator("#status")).to_contain_text("usually")
    await expect(page.locator("#bar")).to_have_attribute(
        "aria-valuenow", re.compile(r"^[1-9]\d?$"), timeout=DEADLINE * 1000
    )
    await shoot(page, "page-waking", full_page=False)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done", timeout=DEADLINE * 1000)
    poem = await page.locator("#text").inner_text()
    assert len(poem.splitlines()) >= 4
    await page.locator("[name=model][value=painter]").check()
    for prompt in ("画一只狐狸", "a slice of watermelon"):
        await page.locator("#prompt").fill(prompt)
        await page.locator("#serve").click()
        await expect(page.locator("#pictures img:not(.rough, .old)")).to_have_js_property(
            "naturalWidth", 64, timeout=DEADLINE * 1000
        )
        await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await shoot(page, "page-picture", full_page=False)
    await expect(page.locator("#shelf li")).to_have_count(3)
    await page.locator("#shelf .open").last.click()
    assert await page.locator("#text").inner_text() == poem
    await shoot(page, "page-text")
    await page.locator("[data-act=again]").first.click()
    await expect(page.locator("#shelf li")).to_have_count(4, timeout=DEADLINE * 1000)
    assert await page.locator("#text").inner_text() == poem  # the same seed


@pytest.mark.nightly
async def test_the_same_on_a_phone_in_the_dark(stack: str, visit: Open, shoot: Shoot) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    page = await visit(stack, locale="zh-CN", color_scheme="dark", **phone)
    for model, prompt in (("painter", "画一只狐狸"), ("poet", "写一首关于江上月夜的诗")):
        await page.locator(f"[name=model][value={model}]").check()
        await page.locator("#prompt").fill(prompt)
        await page.locator("#serve").click()
        await expect(page.locator("#stage")).to_have_attribute("data-state", "done", timeout=DEADLINE * 1000)
    await expect(page.locator("#stage")).to_be_in_viewport(ratio=0.9)  # without scrolling there by hand
    await expect(page.locator("#shelf li")).to_have_count(2)
    await shoot(page, "page-phone-dark", full_page=False)
