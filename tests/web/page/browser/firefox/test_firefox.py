"""The page in Firefox: flows that are written for its driver (javascript/flows)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Firefox = Any  # of conftest.py
Start = Any  # of conftest.py

WITHOUT_COOKIES = "withoutCookies"
FLOWS = [
    name
    for module in sorted((Path(__file__).parent / "javascript" / "flows").iterdir())
    for name in re.findall(r"^export async function (\w+)", module.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("flow", [flow for flow in FLOWS if flow != WITHOUT_COOKIES])
async def test_it_works_in_firefox_too(firefox: Firefox, url: str, control: str, flow: str) -> None:
    await firefox.run(flow, url, control)


async def test_where_firefox_keeps_nothing(start: Start, url: str, control: str) -> None:
    async with start({"network.cookie.cookieBehavior": 2}) as firefox:
        await firefox.run(WITHOUT_COOKIES, url, control)
