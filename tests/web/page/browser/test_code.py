"""The order as programs send it: what the page shows is run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.packages.installed import NODE

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py

PROMPT = 'it\'s "rain" & 雨\\n'


async def shown(page: Page, tab: str, *, streamed: bool = False) -> str:
    await page.locator(f"#tab-{tab}").click()
    await expect(page.locator(f"#tab-{tab}")).to_have_attribute("aria-selected", "true")
    await page.locator("#streamed").set_checked(streamed)
    mark = {"curl": "curl ", "fetch": "const ", "Python": "shangcai", "OpenAI": "openai"}[tab]
    if streamed:
        mark = {"curl": "event-stream", "fetch": "stream(", "Python": ".stream(", "OpenAI": "stream=True"}[tab]
    await expect(page.locator("#snippet")).to_contain_text(mark)
    return await page.locator("#snippet").text_content() or ""


async def run(*command: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode()


def command(tab: str, code: str) -> list[str]:
    if tab == "curl":
        return ["sh", "-c", code.replace("curl ", "curl -sS --fail ", 1)]
    if tab == "fetch":
        return [str(NODE), "--input-type=module", "-e", f"{code}\nconsole.log(text);"]
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("tab", "streamed"),
    [*((tab, streamed) for tab in ("curl", "Python", "OpenAI") for streamed in (False, True)), ("fetch", False)],
)
async def test_a_text_is_asked_for_as_the_page_says(
    url: str, poet: FakeModel, visit: Open, tmp_path: Path, tab: str, streamed: bool
) -> None:
    page = await visit(url)
    await page.locator(".options summary").click()
    await page.locator("[name=temperature]").fill("0.5")
    await page.locator("[name=stop]").fill("#")
    poet.send("春天", None)
    await page.locator("#prompt").fill(PROMPT)
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await page.locator("#code summary").click()
    code = await shown(page, tab, streamed=streamed)
    poet.send("春天", None)
    out = await run(*command(tab, code), folder=tmp_path)
    assert "春天" in out
    first, second = poet.requests
    for field in ("messages", "seed", "temperature", "stop"):
        assert first[field] == second[field], field


@pytest.mark.parametrize("tab", ["curl", "Python", "OpenAI"])
async def test_a_picture_is_asked_for_as_the_page_says(
    url: str, painter: FakeModel, visit: Open, tmp_path: Path, tab: str
) -> None:
    page = await visit(url)
    await page.locator("[name=model][value=painter]").check()
    await page.locator(".options summary").click()
    await page.locator("[name=steps]").fill("4")
    await page.locator("[name=size]").fill("256x256")
    painter.paint()
    painter.finish_picture()
    await page.locator("#prompt").fill(PROMPT)
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await page.locator("#code summary").click()
    code = await shown(page, tab)
    painter.finish_picture()
    await run(*command(tab, code), folder=tmp_path)
    content = await asyncio.to_thread((tmp_path / "picture.png").read_bytes)
    assert content.startswith(b"\x89PNG")
    first, second = painter.requests
    for field in ("prompt", "seed", "steps", "size"):
        assert first[field] == second[field], field


async def test_tabs_are_chosen_by_arrow_keys_and_copied(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, permissions=["clipboard-read", "clipboard-write"])
    poet.send("x", None)
    await page.locator("#prompt").fill("rain")
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await page.locator("#code summary").click()
    await page.locator("#tab-curl").focus()
    for key, tab in (("ArrowRight", "fetch"), ("ArrowLeft", "curl"), ("ArrowLeft", "OpenAI"), ("ArrowRight", "curl")):
        await page.keyboard.press(key)
        await expect(page.locator(f"#tab-{tab}")).to_be_focused()
    await expect(page.locator("#snippet .string")).not_to_have_count(0)
    await page.locator("#copy-code").click()
    assert await page.evaluate("navigator.clipboard.readText()") == await page.locator("#snippet").text_content()
