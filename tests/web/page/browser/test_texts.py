"""Texts as they are shown: Markdown as nodes, and conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.web.page import lost, tab_to, watch_focus

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[[Page, str], Awaitable[Any]]
FakeModel = Any  # of conftest.py

RENDER = """async (text) => {
  const script = document.querySelector("script").src;
  const {blocks, node} = await import(script.replace("main.js", "on_demand/markdown.js"));
  const box = document.createElement("div");
  box.append(...blocks(text).map(({block}) => node(block)));
  for (const element of box.querySelectorAll("*")) element.removeAttribute("dir");
  return box.innerHTML;
}"""
ARTICLE = """# Containers

A *container* is **not** a `virtual machine`:

1. it shares the kernel,
2. it starts at once
   - in milliseconds
   - on any host

```python
print("<b>hello</b>")
```

> Small is beautiful.

| engine | since |
|---|---|
| runc | 2015 |

See [the docs](https://example.org/a_b)."""


@pytest.fixture
def descriptions() -> dict[str, Any]:
    return {"poet": {"conversations": True}}


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
        ("# A\ntext\n## B #", "<h3>A</h3><p>text</p><h4>B</h4>"),
        ("a **b *c* d** `*e*`", "<p>a <strong>b <em>c</em> d</strong> <code>*e*</code></p>"),
        ("2 * 3 * 4, snake_case_name, a*b", "<p>2 * 3 * 4, snake_case_name, a*b</p>"),
        ("- a\n- b\n  1. c\n- d", '<ul><li>a</li><li>b<ol start="1"><li>c</li></ol></li><li>d</li></ul>'),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
        ("---", "<hr>"),
        (
            "```js\n\n<a>\n```\nafter",
            '<pre tabindex="0" data-language="js"><code>\n&lt;a&gt;</code></pre><p>after</p>',
        ),
        ("```\nopen", '<pre tabindex="0" data-language=""><code>open</code></pre>'),
        (
            "[a](https://b.test/c) [d](javascript:alert(1))",
            '<p><a href="https://b.test/c" rel="noreferrer noopener" target="_blank">a</a> '
            "[d](javascript:alert(1))</p>",
        ),
        ("<script>x</script> &amp; <img src=x>", "<p>&lt;script&gt;x&lt;/script&gt; &amp;amp; &lt;img src=x&gt;</p>"),
        (
            "a | b\n--|--\n1 | 2",
            "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>",
        ),
        ("**open", "<p>**open</p>"),
        ("", ""),
    ],
)
async def test_markdown_is_nodes_and_nothing_is_parsed_as_html(url: str, visit: Open, text: str, html: str) -> None:
    page = await visit(url)
    assert await page.evaluate(RENDER, text) == html


async def test_marks_without_end_take_no_time(url: str, visit: Open) -> None:
    page = await visit(url)
    for mark in ("**a", "`", "[a](", "_a", "> ", "- ", "# ", "|"):
        assert await page.evaluate(RENDER, mark * 60_000)


async def test_an_article_is_set_while_it_is_written(
    url: str, poet: FakeModel, visit: Open, shoot: Shoot, axe: str
) -> None:
    page = await visit(url, permissions=["clipboard-read", "clipboard-write"])
    await page.locator("#prompt").fill("containers")
    await page.locator("#serve").click()
    half = ARTICLE.index("2. it")
    for at in range(0, half, 7):
        poet.send(ARTICLE[at : min(at + 7, half)])
    await expect(page.locator("#answer h3")).to_have_text("Containers")
    await expect(page.locator("#answer ol > li")).to_have_text(["it shares the kernel,"])
    poet.send(ARTICLE[half:], None)
    await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    await expect(page.locator("#answer pre")).to_have_text('print("<b>hello</b>")')
    await expect(page.locator("#answer ol ul li")).to_have_text(["in milliseconds", "on any host"])
    written = await page.locator("#answer").inner_html()
    await page.locator("[data-act=copy]").first.click()
    assert await page.evaluate("navigator.clipboard.readText()") == ARTICLE
    await shoot(page, "article")
    await page.reload()
    await page.locator("#shelf .open").click()
    await expect(page.locator("#answer h3")).to_have_text("Containers")
    assert await page.locator("#answer").inner_html() == written


async def test_a_conversation_of_twenty_turns_by_keyboard(url: str, poet: FakeModel, visit: Open, shoot: Shoot) -> None:
    page = await visit(url)
    await watch_focus(page)
    poet.send("answer 0", None)
    await tab_to(page, "prompt")
    await page.keyboard.type("question 0")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#reply")).to_be_visible()
    await tab_to(page, "reply")
    await page.keyboard.press("Enter")
    for number in range(1, 20):
        await expect(page.locator("#prompt")).to_be_focused()
        await expect(page.locator("#prompt")).to_have_value("")
        poet.send(f"answer {number}", None)
        await page.keyboard.type(f"question {number}")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator("#answer")).to_have_text(f"answer {number}")
        await expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    turns = [(turn["role"], turn["content"]) for turn in poet.requests[-1]["messages"]]
    expected = [(role, f"{what} {number}") for number in range(20) for role, what in SPEAKERS]
    assert turns == expected[:-1]
    await expect(page.locator("#turns > div")).to_have_count(39)
    await expect(page.locator("#talk")).to_contain_text("In conversation, turn 20.")
    await expect(page.locator("#shelf li")).to_have_count(20)
    await shoot(page, "conversation")
    await tab_to(page, "anew", "Shift+Tab", most=1)
    await page.keyboard.press("Enter")
    await expect(page.locator("#talk")).to_be_hidden()
    await expect(page.locator("#prompt")).to_be_focused()
    poet.send("alone", None)
    await page.keyboard.type("anew")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#answer")).to_have_text("alone")
    assert len(poet.requests[-1]["messages"]) == 1
    await expect(page.locator("#shelf li")).to_have_count(21)
    await tab_to(page, "open")
    await page.keyboard.press("ArrowRight")  # to the last turn, to be said otherwise
    await page.keyboard.press("Enter")
    await expect(page.locator("#talk")).to_contain_text("In conversation, turn 19.")
    await expect(page.locator("#prompt")).to_have_value("question 19")
    assert await lost(page) == []


SPEAKERS = (("user", "question"), ("assistant", "answer"))
