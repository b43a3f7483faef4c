"""The module in a page of somebody else's, as docs/clients.md shows it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py


async def test_the_snippet_of_the_documents_works(url: str, poet: FakeModel, visit: Open) -> None:
    snippet = re.search(r"```html\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)
    assert snippet
    shown = f"<!doctype html><body>{snippet[1]}</body>"

    async def show(route: Route) -> None:
        await route.fulfill(body=shown, content_type="text/html")

    page = await visit(url)
    poet.send("春", "雨", None)
    await page.route(f"{url}/mine", show)
    await page.goto(f"{url}/mine")
    await expect(page.locator("body")).to_contain_text("春雨")
