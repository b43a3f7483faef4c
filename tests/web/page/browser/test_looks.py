"""How it looks and whom it serves: languages, colours, widths, keyboards, screen readers, hostile texts, no scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.waiting import eventually
from tests.support.web.page import check_access, order

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[[Page, str], Awaitable[Path]]
FakeModel = Any  # of conftest.py

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
POEM = "春雨潇潇湿柳丝，\n一江新绿上船时。\n东风不管人离别，\n犹送杨花过短篱。"
HOSTILE = (
    "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script> "
    "${prompt} שלום עולם \u202e 👩\u200d🍳🍲 'q' \\ "
)


async def served(page: Page, prompt: str, model: str = "poet") -> None:
    await order(page, prompt, model)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    if model == "poet":
        await expect(page.locator("#answer > *")).not_to_have_count(0)


async def overflow(page: Page) -> list[str]:
    """What sticks out of the window sideways."""
    found: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((element) => {
          const {left, right, width} = element.getBoundingClientRect();
          return width && !element.closest(".unseen, .bar, .actions") && (right > innerWidth + 1 || left < -1);
        }).map((element) => element.outerHTML.slice(0, 80))"""
    )
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "phone"])
@pytest.mark.parametrize("language", ["en", "zh"])
async def test_nothing_sticks_out_and_axe_finds_nothing(
    url: str,
    poet: FakeModel,
    painter: FakeModel,
    visit: Open,
    shoot: Shoot,
    axe: str,
    language: str,
    width: str,
    theme: str,
) -> None:
    size = PHONE if width == "phone" else WIDE
    page = await visit(url, locale={"en": "en-GB", "zh": "zh-CN"}[language], color_scheme=theme, **size)
    name = f"{language}-{width}-{theme}"
    assert await page.locator("html").get_attribute("lang") == {"en": "en", "zh": "zh-CN"}[language]
    await check_access(page, axe)
    assert await overflow(page) == []
    await shoot(page, f"idle-{name}")
    painter.paint()
    painter.finish_picture()
    await served(page, "a red fox" if language == "en" else "画一只狐狸", "painter")
    await expect(page.locator("#shelf li")).to_have_count(1)
    poet.send(*POEM, None)
    await served(page, "春雨")
    await expect(page.locator("#shelf li")).to_have_count(2)
    await expect(page.locator("#shelf img")).to_have_js_property("naturalWidth", 256)
    await page.locator(".options summary").click()
    await page.locator("#code summary").click()
    await check_access(page, axe)
    assert await overflow(page) == []
    await page.evaluate("scrollTo(0, 0)")
    await shoot(page, f"served-{name}")
    poet.send(*POEM[:20])
    await page.locator("[data-act=another]").click()
    await expect(page.locator("#text")).to_contain_text("一江新绿")
    await check_access(page, axe)
    await page.evaluate("scrollTo(0, 0)")
    await shoot(page, f"running-{name}")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_in_forced_colours_it_can_be_told_what_is_chosen(
    url: str, poet: FakeModel, visit: Open, shoot: Shoot, axe: str, theme: str
) -> None:
    page = await visit(url, forced_colors="active", color_scheme=theme)
    await check_access(page, axe)
    styles = "rows => rows.map((row) => getComputedStyle(row).outlineStyle)"
    assert await page.locator(".model").evaluate_all(styles) == ["solid", "none"]
    assert await page.locator("#serve").evaluate("button => getComputedStyle(button).borderTopStyle") == "solid"
    poet.send(*POEM, None)
    await served(page, "春雨")
    await check_access(page, axe)
    await shoot(page, f"forced-{theme}")


async def test_languages_and_colours_are_switched_and_remembered(url: str, visit: Open) -> None:
    page = await visit(url, color_scheme="light")
    await expect(page.locator("#serve")).to_have_text("Serve")
    await page.locator("#language").click()
    await expect(page.locator("#serve")).to_have_text("上菜")
    await expect(page.locator("#prompt")).to_have_attribute("placeholder", "写一首关于春雨的诗")
    await page.locator("#theme").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    await page.reload()
    await expect(page.locator("#serve")).to_have_text("上菜")
    assert await page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == dark
    await page.locator("#theme").click()
    assert await page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != dark


async def test_every_text_is_switched(url: str, poet: FakeModel, visit: Open) -> None:
    """A page that was switched says what one says that was rendered so."""
    page = await visit(url)
    poet.send(*POEM, None)
    await served(page, "春雨")
    await expect(page.locator("#shelf li")).to_have_count(1)
    await page.locator("#shelf li").scroll_into_view_if_needed()  # or what it says is not rendered
    await expect(page.locator("#shelf li")).to_contain_text(POEM, use_inner_text=True)
    await page.locator("#language").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    switched = (await page.locator("body").inner_text()).splitlines()
    rendered = await visit(url, locale="zh-CN")
    poet.send(*POEM, None)
    await served(rendered, "春雨")
    await expect(rendered.locator("#shelf li")).to_have_count(1)
    await rendered.locator("#shelf li").scroll_into_view_if_needed()  # or what it says is not rendered
    await expect(rendered.locator("#shelf li")).to_contain_text(POEM, use_inner_text=True)
    fresh = (await rendered.locator("body").inner_text()).splitlines()

    def unnumbered(lines: list[str]) -> list[str]:
        return ["".join(char for char in line if not char.isdecimal() and char != ".") for line in lines]

    assert unnumbered(switched) == unnumbered(fresh)


async def test_screen_readers_are_told_states_and_not_tokens(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url)
    await expect(page.get_by_role("textbox", name="Your order")).to_be_visible()
    await expect(page.get_by_role("group", name="Menu").get_by_role("radio", name="poet writes")).to_be_checked()
    await page.evaluate(
        """() => { window.told = []; for (const region of document.querySelectorAll("[role=status], [role=alert]")) {
          new MutationObserver(() => region.textContent && told.push(region.textContent))
            .observe(region, {childList: true, characterData: true, subtree: true}); } }"""
    )
    poet.send(*POEM, None)
    await served(page, "春雨")
    told = await page.evaluate("told")
    assert told[-1] == "Served."
    assert len(told) <= 5
    assert not any("柳" in text for text in told)


async def test_hostile_texts_are_shown_and_not_run(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    prompt = (HOSTILE + "长") * 90
    assert len(prompt) > 10_000
    poet.send(*HOSTILE, "\n", HOSTILE, None)
    await served(page, prompt)
    assert poet.requests[0]["messages"][-1]["content"] == prompt
    assert await page.locator("#asked").text_content() == prompt
    assert await page.locator("#answer").text_content() == f"{HOSTILE}\n{HOSTILE}"
    await page.reload()
    await page.locator("#shelf .open").click()
    await expect(page.locator("#answer p")).to_have_count(1)
    assert await page.locator("#answer").text_content() == f"{HOSTILE}\n{HOSTILE}"
    assert await page.title() == "上菜 Shangcai"
    assert await page.locator("#text img, #asked img, #shelf img, main script").count() == 0
    assert await overflow(page) == []
    await shoot(page, "hostile")


async def test_cards_are_copied_downloaded_made_again_and_removed(
    url: str, poet: FakeModel, painter: FakeModel, visit: Open
) -> None:
    page = await visit(url, permissions=["clipboard-read", "clipboard-write"])
    poet.send(*POEM, None)
    await served(page, "春雨")
    painter.paint()
    painter.finish_picture()
    await served(page, "a fox", "painter")
    picture, poem = page.locator("#shelf li").nth(0), page.locator("#shelf li").nth(1)
    await poem.locator("[data-act=copy]").click()
    await expect(page.locator("#toast")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == POEM
    for card, suffix, begin in ((poem, "txt", "春雨".encode()), (picture, "png", b"\x89PNG")):
        async with page.expect_download() as waiting:
            await card.locator("[data-act=download]").click()
        download = await waiting.value
        assert download.suggested_filename.endswith(suffix)
        content = await asyncio.to_thread(Path(await download.path()).read_bytes)
        assert content.startswith(begin)
    await picture.locator("[data-act=copy]").click()
    copied = "navigator.clipboard.read().then(([item]) => item.types[0] === 'image/png')"
    await eventually(lambda: page.evaluate(copied), "a copied picture")
    poet.send("春", None)
    await poem.locator("[data-act=again]").click()
    await expect(page.locator("#shelf li")).to_have_count(3)
    assert poet.requests[0] == poet.requests[1]
    await poem.locator("[data-act=remove]").click()
    await expect(page.locator("#shelf li")).to_have_count(2)
    await page.reload()
    await expect(page.locator("#shelf li")).to_have_count(2)
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.dismiss()))
    await page.locator("#clear").click()
    await expect(page.locator("#shelf li")).to_have_count(2)
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.locator("#clear").click()
    await expect(page.locator("#empty")).to_be_visible()
    await page.reload()
    await expect(page.locator("#empty")).to_be_visible()


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_without_scripts(
    url: str, poet: FakeModel, painter: FakeModel, visit: Open, shoot: Shoot, axe: str, language: str
) -> None:
    page = await visit(url, java_script_enabled=False, locale="zh-CN" if language == "zh" else "en-US")
    await expect(page.locator("#theme, #examples, #gallery")).to_have_count(3)
    for hidden in ("#theme", "#examples", "#gallery"):
        await expect(page.locator(hidden)).to_be_hidden()
    poet.send(*HOSTILE, None)
    await page.locator("#prompt").fill("<b>春雨</b>")
    await page.locator("#serve").click()
    await expect(page.locator(".answer .text")).to_have_text(HOSTILE.strip())
    await expect(page.locator("#prompt")).to_have_value("<b>春雨</b>")
    await expect(page.locator("#serve")).to_have_text("上菜" if language == "zh" else "Serve")
    painter.paint()
    painter.finish_picture()
    await page.locator("[value=painter]").check()
    await page.locator("#serve").click()
    await expect(page.locator(".answer img")).to_have_js_property("naturalWidth", 256)
    await shoot(page, f"no-scripts-{language}")
    await page.locator("#language").click()
    await expect(page.locator("#serve")).to_have_text("Serve" if language == "zh" else "上菜")
