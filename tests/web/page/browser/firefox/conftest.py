"""A real Firefox, driven over WebDriver BiDi, in front of the servers of ../conftest.py."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.support.packages.installed import NODE
from tests.support.waiting import SECONDS
from tests.web.page.browser.conftest import FakeModel, listening

PACKAGES = Path(__file__).parent / "javascript"


class Firefox:
    """One Firefox, and the driver that runs flows in it."""

    def __init__(self, driver: asyncio.subprocess.Process) -> None:
        self._driver = driver

    async def run(self, flow: str, url: str, control: str) -> None:
        """In a context of its own; fails with what went wrong, or with what the console complained of."""
        asked, answered = self._driver.stdin, self._driver.stdout
        assert asked
        assert answered
        asked.write(json.dumps({"flow": flow, "url": url, "control": control}).encode() + b"\n")
        line = await asyncio.wait_for(answered.readline(), 2 * SECONDS)
        assert line, "the driver has ended"
        if problem := json.loads(line):
            pytest.fail(problem, pytrace=False)


Start = Callable[[dict[str, Any]], AbstractAsyncContextManager[Firefox]]
"""Starts a Firefox with these preferences beside puppeteer's."""


@pytest.fixture
def descriptions() -> dict[str, Any]:
    size = {"multiple": 8, "side": 128, "pixels": 8192}
    return {
        "poet": {"conversations": True},
        "painter": {"limits": {"size": size}, "defaults": {"size": "64x64"}},
    }


@pytest_asyncio.fixture(loop_scope="module")
async def control(poet: FakeModel, painter: FakeModel) -> AsyncGenerator[str]:
    """Where flows say what a model is to do, and ask what it was asked for."""
    models = {"poet": poet, "painter": painter}

    async def tell(request: Request) -> JSONResponse:
        model = models[request.path_params["model"]]
        told = await request.json()
        model.phase = told.get("phase", model.phase)
        model.send(*told.get("send", []))
        if "paint" in told:
            model.paint()
            model.finish_picture()
        return JSONResponse({"requests": model.requests, "running": model.running})

    async with listening(Starlette(routes=[Route("/{model}", tell, methods=["POST"])])) as address:
        yield address


@pytest.fixture(scope="session")
def start(npm_installed: Callable[[Path], Path]) -> Start:
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("in CI the page is tested: needs firefox-esr")
        pytest.skip("needs firefox-esr")
    modules = npm_installed(PACKAGES) / "node_modules"
    puppeteer = (modules / "puppeteer-core" / "lib" / "puppeteer" / "puppeteer-core.js").as_uri()

    @asynccontextmanager
    async def started(preferences: dict[str, Any]) -> AsyncIterator[Firefox]:
        driver = await asyncio.create_subprocess_exec(
            *(NODE, PACKAGES / "driver.js", puppeteer, program, json.dumps(preferences)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Firefox(driver)
        finally:
            assert driver.stdin
            driver.stdin.close()  # the driver ends, and its Firefox with it
            await asyncio.wait_for(driver.wait(), SECONDS)

    return started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def firefox(start: Start) -> AsyncGenerator[Firefox]:
    async with start({}) as firefox:
        yield firefox
