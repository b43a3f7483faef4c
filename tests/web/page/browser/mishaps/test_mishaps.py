"""What people have stumbled over: layouts that broke, orders that changed by themselves, and states that were wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py

PHONE = {"width": 390, "height": 844}
EIGHT = "".join(f"{line}，\n" for line in ["山色空蒙雨亦奇"] * 8)


@pytest.fixture
def descriptions() -> dict[str, Any]:
    return {"poet": {"conversations": True}}


async def order(page: Page, prompt: str, model: str = "poet") -> None:
    await page.locator(f"[name=model][value={model}]").check()
    await page.locator("#prompt").fill(prompt)
    await page.locator("#serve").click()


async def served(page: Page, prompt: str, model: str = "poet") -> None:
    before = await page.locator("#shelf li").count()
    await order(page, prompt, model)
    await expect(page.locator("#shelf li")).to_have_count(before + 1)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")


async def seed_of(page: Page) -> str:
    return await page.locator("[name=seed]").input_value()


# Layout


async def test_the_form_never_lies_over_the_gallery(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, viewport={"width": 1280, "height": 700})
    for text in ("one", "two"):
        poet.send(text, None)
        await served(page, text)
    await page.evaluate("scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
    bottoms = await page.evaluate(
        """["#order", "#stage", "#gallery"].map((name) => document.querySelector(name).getBoundingClientRect())
          .map(({top, bottom}) => [top, bottom])"""
    )
    (_, order_end), (_, stage_end), (gallery_top, _) = bottoms
    assert order_end <= stage_end < gallery_top


async def test_a_long_order_in_line_stays_in_it(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, viewport=PHONE)
    poet.send("one")
    await order(page, "first")
    await expect(page.locator("#text")).to_have_text("one")
    await order(page, "a long order " * 20)
    await expect(page.locator("#line button")).to_be_in_viewport()
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("width", [400, 600, 700, 850, 1000])
async def test_the_header_keeps_its_words_on_a_line(url: str, visit: Open, width: int) -> None:
    page = await visit(url, viewport={"width": width, "height": 700})
    for part in (".mark", "#language"):
        box = await page.locator(part).bounding_box()
        assert box
        assert box["height"] < 45


async def test_eight_vertical_lines_are_seen_on_a_phone(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, viewport=PHONE)
    poet.send(EIGHT.strip(), None)
    await served(page, "rain")
    await page.locator("#upright").click()
    hidden = await page.locator("#text").evaluate("text => text.scrollWidth - text.clientWidth")
    assert hidden <= 1


async def test_several_pictures_are_seen_in_their_own_size(url: str, painter: FakeModel, visit: Open) -> None:
    page = await visit(url)
    await page.locator("[name=model][value=painter]").check()
    await page.locator(".options summary").click()
    await page.locator("[name=n]").fill("4")
    painter.paint()
    painter.finish_picture(4)
    await served(page, "a fox", "painter")
    images = page.locator("#pictures img:not(.old)")
    await expect(images).to_have_count(4)
    dish = await page.locator(".dish").bounding_box()
    assert dish
    for index in range(4):
        box = await images.nth(index).bounding_box()
        assert box
        assert box["y"] + box["height"] <= dish["y"] + dish["height"]
    await page.locator("#actual").click()
    await eventually(lambda: images.evaluate_all("images => images.every(({width}) => width === 256)"))


async def test_earlier_turns_are_set_as_the_last_one(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("It is **wet**.", None)
    await served(page, "what is rain?")
    await page.locator("#reply").click()
    poet.send("x", None)
    await served(page, "and then?")
    await expect(page.locator("#turns .assistant strong")).to_have_text("wet")


# Orders that change by themselves


async def test_a_seed_that_nobody_typed_is_not_kept(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("one ")
    await order(page, "count")
    await expect(page.locator("#text")).to_have_text("one ")
    await page.reload()
    await expect(page.locator("#text")).to_have_text("one ")
    assert await seed_of(page) == ""
    poet.send(None)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")

    await page.locator("#prompt").fill("something else")
    await page.locator("#shelf .open").click()
    assert await seed_of(page) == str(poet.requests[0]["seed"])
    await expect(page.locator(".options summary")).to_contain_text(f"seed {poet.requests[0]['seed']}")
    await page.locator("#toast button").click()
    await expect(page.locator("#prompt")).to_have_value("something else")
    assert await seed_of(page) == ""
    await expect(page.locator(".options summary")).not_to_contain_text("seed")


async def test_what_is_opened_does_not_change_the_kept_settings(url: str, visit: Open) -> None:
    page = await visit(url)
    await page.locator(".options summary").click()
    await page.locator("[name=temperature]").fill("0.5")
    await page.goto(f"{url}/?prompt=rain&temperature=1.5")
    await expect(page.locator("[name=temperature]")).to_have_value("1.5")
    await page.goto(url)
    await expect(page.locator("[name=temperature]")).to_have_value("0.5")


async def test_a_look_at_another_model_ends_no_conversation(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("x", None)
    await served(page, "rain")
    await page.locator("#reply").click()
    await expect(page.locator("#talk")).to_be_visible()
    await page.locator("[name=model][value=painter]").check()
    await expect(page.locator("#talk")).to_be_hidden()
    await page.locator("[name=model][value=poet]").check()
    await expect(page.locator("#talk")).to_be_visible()
    poet.send("y", None)
    await served(page, "and snow?")
    assert len(poet.requests[1]["messages"]) == 3
    await expect(page.locator("#share")).to_be_hidden()  # no address holds a conversation


async def test_white_space_is_no_order(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, locale="zh-CN")
    await order(page, "  \n ")
    await expect(page.locator("#prompt")).to_be_focused()
    assert await page.locator("#prompt").evaluate("field => field.validationMessage") == "请写下想要什么。"
    assert poet.requests == []


async def test_another_language_is_kept_where_the_address_names_one(url: str, visit: Open) -> None:
    page = await visit(url)
    await page.goto(f"{url}/?lang=en&prompt=rain")
    await page.locator("#language").click()
    await expect(page.locator("#serve")).to_have_text("上菜")
    await page.reload()
    await expect(page.locator("#serve")).to_have_text("上菜")
    await expect(page.locator("#prompt")).to_have_value("rain")


# States


async def test_an_order_waits_although_the_connection_is_lost(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, "ERR_")
    poet.send("one ")
    await order(page, "first")
    await expect(page.locator("#text")).to_have_text("one ")
    await page.context.set_offline(True)
    cdp = await page.context.new_cdp_session(page)
    await cdp.send("Page.stopLoading")
    await expect(page.locator("#status")).to_have_text("The connection is lost. Trying again…")
    await expect(page.locator(".awake[data-model=poet]")).to_have_text("")  # nothing is known of it
    await page.locator("#prompt").fill("second")
    await page.locator("#serve").click()
    await expect(page.locator("#line span")).to_have_text("second")
    await page.context.set_offline(False)
    poet.send(None, "two", None)
    await expect(page.locator("#text")).to_have_text("two")


async def test_what_was_stopped_can_be_tried_again(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("one ")
    await order(page, "count")
    await expect(page.locator("#text")).to_have_text("one ")
    await page.locator("#stop").click()
    await expect(page.locator("#status")).to_have_text("Stopped.")
    await expect(page.locator(".courses .broken")).to_have_count(1)
    await eventually(lambda: poet.running == 0)
    poet.send("again", None)
    await page.locator("#retry").click()
    await expect(page.locator("#text")).to_have_text("again")


async def test_the_full_view_shows_what_is_on_the_stage(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    for text in ("- one\n- two", "snow"):
        poet.send(text, None)
        await served(page, text)
    await page.locator("#shelf .open").last.click()
    await page.locator("#shelf [data-act=remove]").last.click()
    await page.locator("[data-act=view]").click()
    await expect(page.locator(".viewer li")).to_have_text(["one", "two"])
    assert await page.locator(".viewer ul").evaluate("list => getComputedStyle(list).listStyleType") == "disc"
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".viewer .text")).to_have_text("snow")


async def test_a_filter_holds_for_what_comes_later(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    for text in ("one", "two", "nine"):
        poet.send(text, None)
        await served(page, text)
    await expect(page.locator("#count")).to_have_text("3")
    await page.locator("#search").fill("n")
    await expect(page.locator("#count")).to_have_text("2 of 3")
    await page.locator("#shelf li:visible [data-act=remove]").first.click()
    await expect(page.locator("#shelf .open:focus")).to_have_text("oneone")
    poet.send("four", None)
    await order(page, "ten")
    await expect(page.locator("#count")).to_have_text("2 of 3")  # "ten" is found
    await page.locator("#search").fill("nothing of this")
    await expect(page.locator("#empty")).to_have_text("Nothing found.")
