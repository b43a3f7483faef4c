"""Nothing that is served freezes the page, and it is there at once."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.support.waiting import eventually
from tests.support.web.page import fill, order

pytestmark = [pytest.mark.slow, pytest.mark.serial, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
FROZEN = 200  # milliseconds without a frame, which somebody who types would feel
LINES = """() => { const begun = performance.now(); const lines = document.createElement("div");
  for (let index = 0; index < 1000; index++) {
    lines.append(Object.assign(document.createElement("p"), {textContent: `line ${index}`})); }
  document.body.append(lines); lines.getBoundingClientRect(); lines.remove(); return performance.now() - begun; }"""
MOST_LINES = 10  # thousand: what even a slow machine may lay out in one task
WATCH = """() => { window.gaps = []; let last = performance.now(); const tick = (now) => {
  gaps.push(now - last); last = now; requestAnimationFrame(tick); }; requestAnimationFrame(tick);
  window.tasks = []; new PerformanceObserver((list) => tasks.push(...list.getEntries().map((task) => task.duration)))
    .observe({entryTypes: ["longtask"]}); }"""

WEIGHTS = """performance.getEntriesByType("navigation").concat(performance.getEntriesByType("resource"))
  .map((entry) => entry.encodedBodySize)"""
CONNECTIONS = 6  # that a browser opens to one server
FIRST_FLIGHT = 14_000  # bytes, which a server may send before it has heard of any


async def top_of(element: Locator) -> float:
    """However far the page is scrolled."""
    return float(await element.evaluate("element => element.getBoundingClientRect().top + scrollY"))


async def frozen(page: Page) -> float:
    """FROZEN, or what this machine needs for some lines of text if that is more."""
    floor = statistics.median([await page.evaluate(LINES) for _ in range(5)])
    print(f"a thousand lines: {floor:.0f} ms")
    return float(max(FROZEN, MOST_LINES * floor))


async def is_smooth(page: Page, what: str, most: float) -> None:
    gap = max(await page.evaluate("gaps"))
    task = max(await page.evaluate("tasks"), default=0)
    print(f"{what}: longest gap between frames {gap:.0f} ms, longest task {task:.0f} ms")
    assert task < most
    assert gap < 2 * most  # the whole machine may be busy


@pytest.mark.parametrize("end", ["", "\n"], ids=["one line", "lines"])
async def test_ten_thousand_tokens(url: str, poet: FakeModel, visit: Open, end: str) -> None:
    page = await visit(url)
    most = await frozen(page)
    await page.evaluate(WATCH)
    tokens = [f"词{index % 10} " + (end if index % 25 == 24 else "") for index in range(10_000)]
    poet.send(*tokens, None)
    await page.locator("#prompt").fill("everything")
    await page.locator("#serve").click()
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done", timeout=60_000)
    await expect(page.locator("#answer > *")).not_to_have_count(0)
    shown = await page.locator("#answer").text_content() or ""
    assert shown == "".join(tokens).rstrip("\n")
    await is_smooth(page, f"10,000 tokens in {len(shown.splitlines())} lines", most)


async def test_two_hundred_results(url: str, poet: FakeModel, painter: FakeModel, visit: Open) -> None:
    page = await visit(url)
    most = await frozen(page)
    painter.paint()
    painter.finish_picture()
    await fill(page, 200, b"\x89PNG" + bytes(100_000), texts=True)
    await page.add_init_script(f"({WATCH})()")
    await page.reload()
    await expect(page.locator("#shelf li")).to_have_count(200)
    await expect(page.locator("#shelf li").first).to_contain_text("number 199")
    assert await page.locator("#shelf img[src]").count() < 40  # those that are near
    for _ in range(10):
        await page.mouse.wheel(0, 1500)
        await page.evaluate("new Promise(requestAnimationFrame)")
    await is_smooth(page, "200 results", most)

    poet.send("one more", None)
    await page.locator("#prompt").fill("one more")
    await page.locator("#serve").click()
    await expect(page.locator("#shelf li").first).to_contain_text("one more")
    await expect(page.locator("#shelf li")).to_have_count(200)  # the oldest one had to go
    await page.reload()
    await expect(page.locator("#shelf li").first).to_contain_text("one more")
    await expect(page.locator("#shelf li")).to_have_count(200)
    await expect(page.locator("#shelf li").last).to_contain_text("number 1")


async def test_the_first_paint(url: str, visit: Open) -> None:
    """It waits for the document and its styles only, however long a script or what it asks for takes. How soon it comes
    is measured by `scripts/bench page`."""
    page = await (await visit(url)).context.new_page()
    came = asyncio.Event()
    needed: list[str] = []
    held: list[str] = []

    async def answer(route: Route) -> None:
        kind = route.request.resource_type
        if kind in ("document", "stylesheet"):
            needed.append(kind)
        else:
            held.append(kind)
            await came.wait()
        await route.continue_()

    await page.route("**", answer)
    visiting = asyncio.create_task(page.goto(url))
    try:
        await expect(page.locator("#serve")).to_be_visible()
        # Playwright's own polling would have the page evaluate a string, which its policy forbids
        painted = "performance.getEntriesByName('first-contentful-paint').length === 1"
        await eventually(lambda: page.evaluate(painted), "a first paint")
        sent = sum(await page.evaluate(WEIGHTS))
        print(f"the first paint needs {len(needed)} requests and {sent} bytes; {len(held)} requests came after it")
        assert "script" in held
        assert not visiting.done()
        assert len(needed) <= CONNECTIONS
        assert sent < FIRST_FLIGHT
    finally:
        came.set()
        await visiting


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["1280", "390"])
async def test_nothing_jumps(url: str, poet: FakeModel, painter: FakeModel, visit: Open, size: dict[str, Any]) -> None:
    """Layout shifts that nobody has caused, from an empty table to a poem and a picture: both wait for another's order,
    while the model wakes up and then in line."""
    other = await visit(url)
    page = await visit(url, **size)
    await page.evaluate(
        """() => { window.shifts = []; new PerformanceObserver((list) => { for (const entry of list.getEntries()) {
          shifts.push([entry.value, ...entry.sources.map(({node}) => node?.id || node?.className)]); } })
          .observe({type: "layout-shift", buffered: true}); }"""
    )

    async def wait_in_line(fake: FakeModel, model: str) -> None:
        fake.phase, fake.seconds = "loading the weights", 2.0
        await order(other, "theirs", model)
        await expect(other.locator("[data-course=waking]")).to_have_class("now")
        await order(page, "ours", model)
        await expect(page.locator("#status")).to_contain_text("fetching the ingredients · Orders before yours: 1.")
        fake.phase = None
        await expect(page.locator("#status")).to_have_text("Orders before yours: 1.")

    for fake, model in ((poet, "poet"), (painter, "painter")):
        await page.locator(f"[value={model}]").check()
        top = await top_of(page.locator("#gallery"))
        await wait_in_line(fake, model)
        assert await top_of(page.locator("#gallery")) == top
        if fake is poet:
            fake.send("x", None, *"一二三四五六七八，\n" * 4, None)
        else:
            fake.paint()
            fake.finish_picture()
            fake.paint()
            await expect(page.locator("#pictures img.rough:not(.old)")).to_have_js_property("naturalWidth", 256)
            fake.finish_picture()
        await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
        await expect(page.locator("#shelf li")).to_have_count(1 if fake is poet else 2)
        assert await top_of(page.locator("#gallery")) == top
    await expect(page.locator("#pictures img.shown")).to_have_count(1)
    shifts = await page.evaluate("shifts")
    print(f"layout shifts: {sum(shift[0] for shift in shifts):.3f}")
    assert sum(shift[0] for shift in shifts) < 0.05, json.dumps(shifts)
