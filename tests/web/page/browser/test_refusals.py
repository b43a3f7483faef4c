"""A page that is refused while it watches: by its share, or by a server that is full."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from contract import problems

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Open = Callable[..., Awaitable[Page]]
FakeModel = Any  # of conftest.py


async def test_a_job_is_followed_on_after_a_refusal_that_passes(url: str, poet: FakeModel, visit: Open) -> None:
    page = await visit(url, "429", "503")
    refusals = [429, 503]

    async def refuse(route: Route) -> None:
        if not refusals:
            await route.continue_()
            return
        status = refusals.pop(0)
        problem = {"type": "urn:shangcai:problem:overloaded", "title": "Full", "status": status, "detail": "Full."}
        await route.fulfill(status=status, body=json.dumps(problem), content_type=problems.MEDIA_TYPE)

    await page.route("**/generations/*", refuse)
    poet.send("one", None)
    await page.locator("#prompt").fill("count")
    await page.locator("#serve").click()
    await expect(page.locator("#text")).to_have_text("one")
    await expect(page.locator("#status")).to_have_text("Served.")
    assert refusals == []
