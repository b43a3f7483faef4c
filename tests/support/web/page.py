"""What tests of the page share: orders, axe-core, the keyboard, and a gallery that is full."""

from __future__ import annotations

import base64
from typing import Any

from playwright.async_api import Page, expect

from tests.support.processes import ROOT

NAME = """() => {
  const {id, dataset, name, className, localName} = document.activeElement;
  return id || dataset.act || name || className || localName;
}"""
WATCH = """() => { window.lost = []; let before = document.body; const look = () => {
  const now = document.activeElement;
  if (now === document.body && before !== now) lost.push(before.outerHTML);
  before = now;
  requestAnimationFrame(look);
}; look(); }"""
FILL = """async ({count, picture, name, texts}) => {
  const archive = await import(`${document.querySelector("script").src.replace("main.js", "results/archive.js")}`);
  const blob = new Blob([Uint8Array.from(atob(picture), (char) => char.charCodeAt(0))], {type: "image/png"});
  for (let index = 0; index < count; index += 1) {
    const kind = texts && index % 2 ? "text" : "image";
    await archive.keep({id: `${name}-${index}`, at: index, kind, model: "painter", seconds: 1, steps: 1, tokens: 1,
      order: {prompt: `number ${index}`, model: "painter", seed: 1},
      text: kind === "text" ? "千里江陵一日还，".repeat(400) : undefined, pictures: [{blob, width: 64, height: 64}]});
  }
}"""


async def check_access(page: Page, axe: str) -> None:
    """No finding of axe-core that is serious; the policy of the page lets it in as it lets in what the test types."""
    await page.evaluate(axe)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    grave = [each for each in found["violations"] if each["impact"] in ("serious", "critical", "moderate")]
    assert grave == [], [(each["id"], [node["html"] for node in each["nodes"]]) for each in grave]


async def order(page: Page, prompt: str, model: str = "poet") -> None:
    """Choose a model, and order."""
    await page.locator(f"[name=model][value={model}]").check()
    await page.locator("#prompt").fill(prompt)
    await page.locator("#serve").click()


async def order_wrong_size(page: Page) -> None:
    """A picture of a size that is none, with the settings folded away: its field is shown, and has the focus."""
    await page.locator("[name=model][value=painter]").check()
    await page.locator(".options summary").click()
    await page.locator("[name=size]").fill("large")
    await page.locator(".options summary").click()
    await order(page, "a fox", "painter")
    await expect(page.locator("[name=size]")).to_be_focused()


async def fill(page: Page, count: int, picture: bytes | None = None, *, name: str = "old", texts: bool = False) -> None:
    """Have the browser keep so many results, named by their numbers; with `texts`, every other one is a long text."""
    content = (ROOT / "docs" / "painter.png").read_bytes() if picture is None else picture
    options: dict[str, Any] = {"count": count, "name": name, "texts": texts}
    await page.evaluate(FILL, {**options, "picture": base64.b64encode(content).decode()})


async def watch_focus(page: Page) -> None:
    """See `lost`."""
    await page.evaluate(WATCH)


async def lost(page: Page) -> list[str]:
    """What had the focus when there was suddenly none, since it has been watched."""
    found: list[str] = await page.evaluate("lost")
    return found


async def focused(page: Page) -> str:
    """What the next key goes to, by the first of its names."""
    found: str = await page.evaluate(NAME)
    return found


async def tab_to(page: Page, name: str, key: str = "Tab", most: int = 25) -> None:
    """Press `key` until the focus is there."""
    for _ in range(most):
        await page.keyboard.press(key)
        if await focused(page) == name:
            return
    raise AssertionError(f"{name} is not reached; at {await focused(page)}")
