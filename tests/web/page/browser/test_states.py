"""Every state of the page while a request is served, in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from contract import FieldError, ProblemError, invalid_field, problems
from contract.problems import field_problem
from tests.support.waiting import eventually
from tests.support.web.page import order, order_wrong_size

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[[Page, str], Awaitable[Path]]
FakeModel = Any  # of conftest.py

POEM = [
    "春雨",
    "潇潇",
    "湿柳丝，\n",
    "一江",
    "新绿",
    "上船时。\n",
    "东风",
    "不管",
    "人离别，\n",
    "犹送",
    "杨花",
    "过短篱。",
]
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


async def test_thoughts_are_folded_away_before_the_text(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    await order(page, "春雨")
    poet.send({"reasoning_content": "雨，"}, {"reasoning_content": "<b>柳</b>"})
    await expect(page.locator("#reasoning")).to_be_visible()
    await expect(page.locator("#thoughts")).to_be_hidden()
    await page.locator("#reasoning summary").click()
    await expect(page.locator("#thoughts")).to_have_text("雨，<b>柳</b>")

    poet.send("湿柳丝", None)
    await expect(page.locator("#status")).to_have_text("Served.")
    await expect(page.locator("#text")).to_have_text("湿柳丝")
    await expect(page.locator("#thoughts")).to_have_text("雨，<b>柳</b>")
    await shoot(page, "thoughts")

    await order(page, "again")
    await expect(page.locator("#reasoning")).to_be_hidden()
    poet.send("moon", None)
    await expect(page.locator("#text")).to_have_text("moon")
    await expect(page.locator("#reasoning")).to_be_hidden()
    await page.locator("#shelf .open").last.click()
    await expect(page.locator("#thoughts")).to_have_text("雨，<b>柳</b>")


async def test_a_text_from_the_first_letter_to_the_gallery(
    url: str, poet: FakeModel, visit: Open, shoot: Shoot
) -> None:
    poet.phase, poet.seconds = "loading the weights", 2.0
    page = await visit(url)
    await expect(page.locator("#idle")).to_be_visible()
    await shoot(page, "idle")
    await page.locator("#prompt").press_sequentially("春")
    await eventually(lambda: poet.asked > 0)
    assert poet.requests == []  # woken, and nothing generated
    await expect(page.locator(".awake[data-model=poet]")).to_have_text("waking")

    await page.locator("#prompt").press_sequentially("雨")
    await page.locator("#serve").click()
    await expect(page.locator("#status")).to_have_text("Waking the model · fetching the ingredients")
    await expect(page.locator("[data-course=waking]")).to_have_class("now")
    await expect(page.locator("#bar")).to_be_visible()
    await shoot(page, "waking")

    poet.phase = None
    poet.send(*POEM[:6])
    await expect(page.locator("#text")).to_have_text("春雨潇潇湿柳丝， 一江新绿上船时。")
    await expect(page.locator("[data-course=running]")).to_have_class("now")
    await expect(page.locator(".awake[data-model=poet]")).to_have_text("ready")
    await shoot(page, "streaming")

    poet.send(*POEM[6:], None)
    await expect(page.locator("#status")).to_have_text("Served.")
    assert (await page.locator("#text").inner_text()).split() == "".join(POEM).split()
    await expect(page.locator("#facts")).to_contain_text("12 tokens")
    await expect(page.locator("#shelf li")).to_have_count(1)
    await expect(page.locator("#stop")).to_be_hidden()
    await page.locator("#code summary").click()
    sent = poet.requests[0]
    await expect(page.locator("#snippet")).to_contain_text(str(sent["seed"]))
    await shoot(page, "text")

    poet.send("again", None)
    await page.locator("[data-act=again]").first.click()
    await expect(page.locator("#text")).to_have_text("again")
    assert poet.requests[1] == sent
    poet.send("another", None)
    await page.locator("[data-act=another]").click()
    await expect(page.locator("#text")).to_have_text("another")
    assert poet.requests[2]["seed"] != sent["seed"]
    await expect(page.locator("#shelf li")).to_have_count(3)


async def test_the_bar_of_a_wake_up_that_was_seen_before(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    for seconds in (4.0, 6.0):  # the first one is what the second is expected to take
        poet.phase, poet.seconds = "loading the weights", seconds
        await page.locator("#prompt").fill("a")
        await page.locator("#serve").click()
        await expect(page.locator("[data-course=waking]")).to_have_class("now")
        if seconds == 6.0:
            await expect(page.locator("#status")).to_contain_text(re.compile(r"usually 4(\.\d)? s"))
            await expect(page.locator("#bar")).to_have_attribute("aria-valuenow", "95")
        poet.phase = None
        poet.send("x", None)
        await expect(page.locator("#status")).to_have_text("Served.")


@pytest.mark.usefixtures("first_status")
@pytest.mark.parametrize(
    ("language", "sentence"),
    [("en", "Sent to the model; no word from it yet."), ("zh", "已送往模型，尚无回音。")],
)
async def test_silence_of_a_model_is_no_queue(
    url: str, poet: FakeModel, visit: Open, shoot: Shoot, language: str, sentence: str
) -> None:
    page = await visit(url, locale="zh-CN" if language == "zh" else "en-US")
    poet.silent = asyncio.Event()
    await order(page, "a")
    await expect(page.locator("#status")).to_have_text(sentence)
    await expect(page.locator(".courses .now")).to_have_count(0)
    await shoot(page, f"pending-{language}")
    poet.send("x", None)
    poet.silent.set()
    await expect(page.locator("#text")).to_have_text("x")


async def test_who_is_before_is_told(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    first, second, third = [await visit(url) for _ in range(3)]
    for page in (first, second, third):
        await order(page, "a")
        await expect(page.locator("[data-course=queued].now, [data-course=running].now")).to_be_visible()
    await expect(second.locator("#status")).to_have_text("Orders before yours: 1.")
    await expect(third.locator("#status")).to_have_text("Orders before yours: 2.")
    await shoot(third, "queued")
    poet.send("x", None, "y", None, "z", None)
    for page, text in ((first, "x"), (second, "y"), (third, "z")):
        await expect(page.locator("#text")).to_have_text(text)


async def test_a_picture_in_steps_and_previews(url: str, painter: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    painter.paint()
    await order(page, "a red fox", "painter")
    await expect(page.locator("#bar")).to_have_attribute("aria-valuenow", "100")
    await expect(page.locator("#pictures img.rough:not(.old)")).to_have_js_property("naturalWidth", 256)
    await expect(page.locator("#status")).to_have_text("Painting…")
    await shoot(page, "painting")
    painter.finish_picture()
    await expect(page.locator("#status")).to_have_text("Served.")
    await expect(page.locator("#pictures img:not(.old)")).to_have_attribute("alt", "Picture 1: a red fox")
    await expect(page.locator("#pictures img.rough")).to_have_count(0)
    await expect(page.locator("#shelf img")).to_have_js_property("naturalWidth", 256)
    await expect(page.locator("#facts")).to_contain_text("understood: fox")
    await shoot(page, "picture")
    assert painter.requests[0]["partial_images"] == 4


async def test_stop_frees_the_slot(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    poet.send("Once ", "upon ")
    await order(page, "a tale")
    await expect(page.locator("#text")).to_have_text("Once upon ")
    assert poet.running == 1
    await page.locator("#stop").click()
    await expect(page.locator("#status")).to_have_text("Stopped.")
    await eventually(lambda: poet.running == 0)
    await expect(page.locator("#stop")).to_be_hidden()
    await expect(page.locator("#shelf li")).to_have_count(0)
    await shoot(page, "stopped")
    poet.send("new", None)
    await order(page, "another tale")
    await expect(page.locator("#text")).to_have_text("new")


async def test_a_reload_finds_the_running_job_again(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.send("one ", "two ")
    await order(page, "count")
    await expect(page.locator("#text")).to_have_text("one two ")
    await page.reload()
    await expect(page.locator("#text")).to_have_text("one two ")
    await expect(page.locator("#prompt")).to_have_value("count")
    poet.send("three", None)
    await expect(page.locator("#status")).to_have_text("Served.")
    await expect(page.locator("#text")).to_have_text("one two three")
    assert len(poet.requests) == 1
    await eventually(lambda: page.evaluate('!("job" in sessionStorage)'))  # shortly after its result
    await page.reload()
    await expect(page.locator("#shelf li")).to_have_count(1)
    await expect(page.locator("#idle")).to_be_visible()


async def test_a_lost_connection_is_told_and_found_again(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url, "ERR_")
    poet.send("one ", "two ")
    await order(page, "count")
    await expect(page.locator("#text")).to_have_text("one two ")
    told: list[str | None] = []
    page.on("request", lambda request: told.append(request.headers.get("last-event-id")))
    cdp = await page.context.new_cdp_session(page)
    await cdp.send("Network.enable")
    await page.context.set_offline(True)
    await cdp.send("Page.stopLoading")
    await expect(page.locator("#status")).to_have_text("The connection is lost. Trying again…")
    await shoot(page, "lost")
    poet.send("three")
    await page.context.set_offline(False)
    await expect(page.locator("#text")).to_have_text("one two three")
    await expect(page.locator("#status")).to_have_text("Writing…")
    assert told[-1] is not None
    assert len(poet.requests) == 1
    poet.send(None)
    await expect(page.locator("#status")).to_have_text("Served.")


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "The order needs a change. Size: must be square"),
        ("zh", "订单中有一项做不了。尺寸: must be square"),
    ],
)
async def test_a_problem_is_a_sentence_and_its_field_is_marked(
    url: str, painter: FakeModel, visit: Open, shoot: Shoot, language: str, sentence: str
) -> None:
    page = await visit(url, locale="zh-CN" if language == "zh" else "en-US")
    painter.problem = invalid_field("size", "must be square")
    await order(page, "狐狸", "painter")
    await expect(page.locator("#problem")).to_have_text(sentence)
    await expect(page.locator(".courses .broken")).to_have_count(1)
    await expect(page.locator("[name=size]")).to_be_focused()
    await expect(page.locator("[name=size]")).to_have_attribute("aria-invalid", "true")
    await shoot(page, f"problem-{language}")
    await expect(page.locator("#stage[data-busy]")).to_have_count(0)


async def test_every_field_reaches_the_model(url: str, poet: FakeModel, painter: FakeModel, visit: Open) -> None:
    page = await visit(url)
    await page.locator(".options summary").click()
    await page.locator("[name=seed]").fill("42")
    await page.locator("[name=temperature]").fill("0.5")
    await page.locator("[name=max_tokens]").fill("9")
    poet.send("x", None)
    await order(page, "words")
    await expect(page.locator("#status")).to_have_text("Served.")
    sent = poet.requests[0]
    assert (sent["seed"], sent["temperature"], sent["max_tokens"]) == (42, 0.5, 9)
    await page.locator("[name=model][value=painter]").check()
    await expect(page.locator("[name=temperature]")).to_be_hidden()
    await page.locator("[name=steps]").fill("3")
    await page.locator("[name=size]").fill("64x64")
    painter.paint()
    painter.finish_picture()
    await order(page, "a fox", "painter")
    await expect(page.locator("#pictures img:not(.old)")).to_have_js_property("naturalWidth", 256)
    sent = painter.requests[0]
    assert (sent["seed"], sent["steps"], sent["size"]) == (42, 3, "64x64")
    await page.locator("#code summary").click()
    await expect(page.locator("#snippet")).to_contain_text("curl")
    curl = await page.locator("#snippet").text_content()
    assert curl is not None
    assert json.loads(curl[curl.index("{") : curl.rindex("}") + 1]) == {
        "prompt": "a fox",
        "model": "painter",
        "seed": 42,
        "steps": 3,
        "size": "64x64",
    }


async def test_what_is_folded_away_is_opened_where_it_is_wrong(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    await page.locator("#serve").click()
    await expect(page.locator("#prompt")).to_be_focused()
    await order_wrong_size(page)
    poet.send("x", None)
    await order(page, "what is another kind's is in nobody's way")
    await expect(page.locator("#text")).to_have_text("x")


async def test_a_job_that_the_server_has_forgotten(url: str, application: Any, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, "404")
    poet.send("one ")
    await order(page, "count")
    await expect(page.locator("#text")).to_have_text("one ")
    await page.evaluate(
        """() => { const job = JSON.parse(sessionStorage.getItem("job"));
          sessionStorage.setItem("job", JSON.stringify({...job, id: "0".repeat(32)})); }"""
    )
    await page.reload()
    await expect(page.locator("#problem")).to_have_text("The server has forgotten this order. Please order again.")
    await page.reload()
    await expect(page.locator("#problem")).to_be_hidden()  # and so has the page
    poet.send(None)


async def test_stopping_is_told_while_the_connection_is_lost(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, "ERR_")
    poet.send("one ")
    await order(page, "count")
    await expect(page.locator("#text")).to_have_text("one ")
    cdp = await page.context.new_cdp_session(page)
    await page.context.set_offline(True)
    await cdp.send("Page.stopLoading")
    await expect(page.locator("#status")).to_have_text("The connection is lost. Trying again…")
    await page.locator("#stop").click()
    await expect(page.locator("#status")).to_have_text("Stopping… The connection is lost. Trying again…")
    await page.context.set_offline(False)
    await expect(page.locator("#status")).to_have_text("Stopped.")


async def test_how_long_it_took_is_told_without_the_waking(url: str, painter: FakeModel, visit: Open) -> None:
    page = await visit(url)
    painter.phase, painter.seconds = "warming up", 7.0
    await order(page, "a fox", "painter")
    await expect(page.locator("[data-course=waking]")).to_have_class("now")
    painter.phase = None
    painter.paint()
    painter.finish_picture()
    await expect(page.locator("#status")).to_have_text("Served.")
    found = await page.locator("#facts").inner_text()
    [made] = re.findall(r"4 steps in ([\d.]+) s", found)
    assert re.search(r"[\d.]+ steps/s", found)
    [woke] = re.findall(r"woke in ([\d.]+) s", found)
    assert float(made) < 5 < 7 <= float(woke)


async def test_pure_noise_is_no_preview(url: str, painter: FakeModel, visit: Open) -> None:
    page = await visit(url)
    painter.paint(steps=8, previews=8)
    await order(page, "a fox", "painter")
    await expect(page.locator("#bar")).to_have_attribute("aria-valuenow", "100")
    await expect(page.locator("#pictures img.rough:not(.old)")).to_have_count(1)
    assert await page.evaluate("performance.getEntriesByType('resource').length") > 0
    painter.finish_picture()
    await expect(page.locator("#status")).to_have_text("Served.")


async def test_what_is_longer_than_the_model_reads_is_explained(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    error = FieldError(field="messages", detail="has 300 tokens", code="context_length_exceeded")
    poet.problem = field_problem([error])
    await order(page, "much")
    await expect(page.locator("#problem")).to_have_text("The order is longer than this model can read. Shorten it.")


async def test_a_failure_counts_down_to_the_next_try(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    poet.problem = ProblemError(problems.CONTENT_FILTERED, "No.")
    await order(page, "rain")
    await expect(page.locator("#problem")).to_have_text("The model keeps back what it made of this.")
    await expect(page.locator("#retry")).to_have_text("Try again")
    poet.problem = None
    poet.send("x", None)
    await page.locator("#retry").click()
    await expect(page.locator("#text")).to_have_text("x")
    await expect(page.locator("#retry")).to_be_hidden()
