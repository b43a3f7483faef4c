"""What people have stumbled over: layouts that broke, orders that changed by themselves, and states that were wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from contract import ProblemError, problems
from tests.support.waiting import eventually
from tests.support.web.page import order, order_wrong_size

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py

PHONE = {"width": 390, "height": 844}
EIGHT = "".join(f"{line}，\n" for line in ["山色空蒙雨亦奇"] * 8)


@pytest.fixture
def descriptions() -> dict[str, Any]:
    return {"poet": {"conversations": True}}


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


async def test_what_is_written_in_a_conversation_is_in_sight(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send(*["a long line\n\n"] * 60, None)
    await served(page, "much")
    await page.locator("#reply").click()
    await page.locator("#prompt").fill("more")
    await page.locator("#serve").click()
    poet.send(*["another line\n\n"] * 60, "the last one")
    await expect(page.locator("#answer p").last).to_have_text("the last one")
    await expect(page.locator("#answer p").last).to_be_in_viewport()
    poet.send(None)


@pytest.mark.parametrize("size", [{"width": 1280, "height": 720}, PHONE], ids=["1280", "390"])
async def test_eight_lines_are_seen_whole(url: str, poet: FakeModel, visit: Open, size: dict[str, int]) -> None:
    page = await visit(url, viewport=size)
    poet.send(EIGHT.strip(), None)
    await served(page, "rain")
    assert await page.locator("#text").evaluate("text => text.scrollHeight - text.clientHeight") <= 1


async def test_the_settings_are_reached_in_a_low_window(url: str, visit: Open) -> None:
    page = await visit(url, viewport={"width": 1280, "height": 720})
    summary, serve = [await page.locator(name).bounding_box() for name in (".options summary", "#serve")]
    assert summary
    assert serve
    assert summary["y"] + summary["height"] <= serve["y"]


@pytest.mark.parametrize("size", [{"width": 1280, "height": 720}, PHONE], ids=["1280", "390"])
async def test_a_field_that_is_refused_is_not_below_the_button(url: str, visit: Open, size: dict[str, int]) -> None:
    page = await visit(url, viewport=size, has_touch=size == PHONE, is_mobile=size == PHONE)
    await order_wrong_size(page)

    async def seen() -> bool:  # the page scrolls smoothly
        field, serve = [await page.locator(name).bounding_box() for name in ("[name=size]", "#serve")]
        return bool(field and serve and field["y"] >= 0 and field["y"] + field["height"] <= serve["y"])

    await eventually(seen)


async def test_pictures_are_seen_in_forced_colours(url: str, painter: FakeModel, visit: Open) -> None:
    """Blended with what is behind them, they would be as black as that."""
    page = await visit(url, forced_colors="active", color_scheme="dark")
    painter.paint()
    painter.finish_picture()
    await served(page, "a fox", "painter")
    blended = "images => images.map((image) => getComputedStyle(image).mixBlendMode)"
    assert set(await page.locator("#pictures img, #shelf img").evaluate_all(blended)) == {"normal"}


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


async def test_an_order_in_line_is_seen(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, viewport={"width": 1280, "height": 720})
    poet.send("one")
    await order(page, "first")
    await expect(page.locator("#text")).to_have_text("one")
    await order(page, "second")
    await expect(page.locator("#line button")).to_be_in_viewport()


async def test_a_failure_is_told_although_another_order_comes_next(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.silent = asyncio.Event()
    await order(page, "first")
    await expect(page.locator("#asked")).to_have_text("first")
    await order(page, "second")
    await expect(page.locator("#line span")).to_have_text("second")
    await page.evaluate(
        """() => { window.told = []; const toast = document.getElementById("toast");
          new MutationObserver(() => told.push(toast.textContent)).observe(toast, {childList: true}); }"""
    )
    poet.problem = ProblemError(problems.CONTENT_FILTERED, "No.")
    poet.silent.set()
    await expect(page.locator("#asked")).to_have_text("second")
    assert "The model keeps back what it made of this." in await page.evaluate("told")


async def test_try_again_takes_the_place_of_stop(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("one ")
    await order(page, "count")
    await expect(page.locator("#text")).to_have_text("one ")
    before = await page.locator(".dish").bounding_box()
    await page.locator("#stop").click()
    await expect(page.locator("#retry")).to_be_visible()
    assert await page.locator(".dish").bounding_box() == before


async def test_two_that_are_removed_are_both_brought_back(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    for text in ("one", "two", "three"):
        poet.send(text, None)
        await served(page, text)
    for _ in range(2):
        await page.locator("#shelf [data-act=remove]").first.click()
    await expect(page.locator("#shelf .prompt")).to_have_text(["one"])
    await page.locator("#toast button").click()
    await expect(page.locator("#shelf .prompt")).to_have_text(["three", "two", "one"])


async def test_whoever_takes_a_star_away_among_favourites_is_not_lost(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("one", None)
    await served(page, "one")
    await page.locator("#shelf [data-act=star]").click()
    await page.locator("#starred").click()
    await page.locator("#shelf [data-act=star]").press("Enter")
    await expect(page.locator("#starred")).to_be_focused()


async def test_a_result_is_not_compared_with_itself(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    compare = page.locator(".viewer nav button").nth(1)
    for number, text in enumerate(("one", "two", "three")):
        poet.send(text, None)
        await served(page, text)
        if number == 0:
            await page.locator("[data-act=view]").click()
            await expect(page.locator(".viewer .text")).to_have_text("one")
            await expect(compare).to_be_hidden()
            await page.keyboard.press("Escape")
    await page.locator("[data-act=view]").click()
    texts = page.locator(".viewer .text")
    await expect(texts).to_have_text(["three"])
    await page.keyboard.press("ArrowRight")
    await compare.click()
    await expect(texts).to_have_text(["two", "one"])
    await page.keyboard.press("ArrowLeft")
    await expect(texts).to_have_text(["two", "three"])


async def test_what_is_too_long_is_said_before(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    await page.locator("#prompt").fill("长" * 32_769)
    await page.locator("#serve").click()
    told = await page.locator("#prompt").evaluate("field => field.validationMessage")
    assert told == "The order is too long to be taken."
    poet.send("x", None)
    await served(page, "👩" * 32_768)  # each is one character, of two units of a script
    assert len(poet.requests) == 1
