"""The whole stack: the page, web, the poet and the painter."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[..., Awaitable[Path]]
ROOT = Path(__file__).parents[4]
LIMIT = 180.0


@pytest.fixture(scope="module")
def stack(free_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """scripts/run, once it serves; its models fall asleep soon."""
    output = tmp_path_factory.mktemp("run") / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [ROOT / "scripts" / "run", "--port", str(free_port), "--idle", "3"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: process.poll() is not None or "Ctrl-C stops it." in output.read_text(),
            "it serves",
            LIMIT,
            pause=0.1,
        )
        assert process.poll() is None, output.read_text()
        yield f"http://127.0.0.1:{free_port}"
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)


async def test_a_poem_and_a_picture_from_models_that_were_asleep(stack: str, visit: Open, shoot: Shoot) -> None:
    page = await visit(stack)
    for model in ("poet", "painter"):
        deadline = time.monotonic() + LIMIT
        while await page.locator(f".awake[data-model={model}]").text_content() != "asleep":
            assert time.monotonic() < deadline
            await page.reload()
            await asyncio.sleep(0.2)
    await page.locator("#prompt").fill("写一首关于春雨的诗")
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "waking")
    await expect(page.locator("#status")).to_contain_text("in all")
    await expect(page.locator("#bar")).to_have_attribute("aria-valuenow", re.compile(r"^[4-9]\d$"))
    await shoot(page, "page-waking", full_page=False)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done", timeout=LIMIT * 1000)
    poem = await page.locator("#text").inner_text()
    assert len(poem.splitlines()) >= 4
    await page.locator("[name=model][value=painter]").check()
    for prompt in ("画一只狐狸", "a slice of watermelon"):
        await page.locator("#prompt").fill(prompt)
        await page.locator("#serve").click()
        await expect(page.locator("#pictures img:not(.rough)")).to_have_js_property(
            "naturalWidth", 64, timeout=LIMIT * 1000
        )
        await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await shoot(page, "page-picture", full_page=False)
    await expect(page.locator("#shelf li")).to_have_count(3)
    await page.locator("#shelf .open").last.click()
    assert await page.locator("#text").inner_text() == poem
    await shoot(page, "page-text")
    await page.locator("[data-act=again]").first.click()
    await expect(page.locator("#shelf li")).to_have_count(4, timeout=LIMIT * 1000)
    assert await page.locator("#text").inner_text() == poem  # the same seed


async def test_the_same_on_a_phone_in_the_dark(stack: str, visit: Open, shoot: Shoot) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    page = await visit(stack, locale="zh-CN", color_scheme="dark", **phone)
    for model, prompt in (("painter", "画一只狐狸"), ("poet", "写一首关于江上月夜的诗")):
        await page.locator(f"[name=model][value={model}]").check()
        await page.locator("#prompt").fill(prompt)
        await page.locator("#serve").click()
        await expect(page.locator("#stage")).to_have_attribute("data-state", "done", timeout=LIMIT * 1000)
    await expect(page.locator("#stage")).to_be_in_viewport(ratio=0.9)  # without scrolling there by hand
    await expect(page.locator("#shelf li")).to_have_count(2)
    await shoot(page, "page-phone-dark", full_page=False)
