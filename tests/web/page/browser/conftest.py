"""A real Chromium, the page as web serves it, and behind it fake model servers that do what the test says."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from PIL import Image, ImageDraw
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, async_playwright, expect
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from contract import ProblemError, problems
from tests.support.processes import ROOT
from tests.support.waiting import SECONDS, eventually
from web.app import create_app
from web.settings import Settings
from wire.problems import problem_response

PACKAGES = Path(__file__).parent / "javascript"
SHOTS = ROOT / "data" / "page"
LIMIT = SECONDS
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

expect.set_options(timeout=LIMIT * 1000)

Open = Callable[..., Awaitable[Page]]
Shoot = Callable[..., Awaitable[Path]]


class FakeModel:
    """One model server. The running generation streams what the test sends: a text's next piece, an event of a picture,
    or None for the end. While `phase` is set, the model is loading."""

    def __init__(self) -> None:
        self.phase: str | None = None
        self.seconds = 0.0
        self.pieces: asyncio.Queue[Any] = asyncio.Queue()
        self.requests: list[dict[str, Any]] = []
        self.running = 0
        self.asked = 0
        self.silent: asyncio.Event | None = None
        """Where there is one, nothing is said before it is set."""
        self.problem: ProblemError | None = None
        self.app = Starlette(
            routes=[
                Route("/v2/health/ready", self._ready),
                Route("/openai/v1/chat/completions", self._write, methods=["POST"]),
                Route("/openai/v1/images/generations", self._paint, methods=["POST"]),
            ]
        )

    def send(self, *pieces: Any) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)

    def paint(self, steps: int = 4, previews: int = 2) -> None:
        """Send all events of a picture but its last."""
        for step in range(1, steps + 1):
            self.send({"type": "image_generation.progress", "step": step, "of": steps, "eta_s": 0.1 * (steps - step)})
            if step % (steps // previews) == 0 and step < steps:
                self.send({"type": "image_generation.partial_image", "image_index": 0, "step": step, **_file(step)})

    def finish_picture(self, count: int = 1) -> None:
        for index in range(count):
            self.send(
                {"type": "image_generation.completed", "image_index": index, "seed": 7, "steps": 4, "size": "256x256"}
                | {"created_at": 1, "understood": ["fox"], **_file(9)}
            )
        self.send(None)

    def _refusal(self) -> Response | None:
        if self.phase is not None:
            loading = ProblemError(problems.LOADING, "Loading.", phase=self.phase, seconds=self.seconds)
            return problem_response(loading)
        return problem_response(self.problem) if self.problem else None

    async def _ready(self, _request: HttpRequest) -> Response:
        self.asked += 1
        return self._refusal() or JSONResponse({"ready": True})

    async def _write(self, request: HttpRequest) -> Response:
        if self.silent is not None:
            await self.silent.wait()
        return self._refusal() or self._stream(self._chunks(await request.json()))

    async def _paint(self, request: HttpRequest) -> Response:
        return self._refusal() or self._stream(self._events(await request.json()))

    def _stream(self, frames: AsyncGenerator[str]) -> Response:
        return StreamingResponse(frames, media_type="text/event-stream")

    async def _chunks(self, request: dict[str, Any]) -> AsyncGenerator[str]:
        def chunk(delta: dict[str, str], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return f"data: {json.dumps({'choices': [choice]})}\n\n"

        self.requests.append(request)
        self.running += 1
        tokens = 0
        try:
            yield chunk({"role": "assistant", "content": ""})
            while (piece := await self.pieces.get()) is not None:
                tokens += 1
                yield chunk(piece if isinstance(piece, dict) else {"content": piece})
            yield chunk({}, "stop")
            usage = {"prompt_tokens": 7, "completion_tokens": tokens}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
        finally:
            self.running -= 1

    async def _events(self, request: dict[str, Any]) -> AsyncGenerator[str]:
        self.requests.append(request)
        self.running += 1
        try:
            yield 'event: image_generation.started\ndata: {"type": "image_generation.started", "queue_s": 0.01}\n\n'
            while (event := await self.pieces.get()) is not None:
                yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        finally:
            self.running -= 1


def _file(step: int) -> dict[str, str]:
    """A picture that becomes clearer."""
    picture = Image.new("RGB", (256, 256), "#fff8ee")
    pen = ImageDraw.Draw(picture)
    for ring in range(step):
        inset = 14 * ring + 10
        pen.ellipse((inset, inset, 256 - inset, 256 - inset), fill=("#e8743b", "#fff1e0")[ring % 2])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"b64_json": base64.b64encode(buffer.getvalue()).decode(), "output_format": "png"}


@asynccontextmanager
async def listening(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_config=None, access_log=False))
    server.config.timeout_graceful_shutdown = 1
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, LIMIT)


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("in CI the page is tested: needs chromium")
        pytest.skip("needs chromium")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def poet() -> AsyncGenerator[FakeModel]:
    yield FakeModel()


@pytest_asyncio.fixture(loop_scope="module")
async def painter() -> AsyncGenerator[FakeModel]:
    yield FakeModel()


@pytest.fixture
def settings() -> dict[str, Any]:
    """Those of the application that a module wants otherwise."""
    return {}


@pytest.fixture
def descriptions() -> dict[str, Any]:
    """What is stated of the models, by their names."""
    return {}


@pytest_asyncio.fixture(loop_scope="module")
async def application(
    poet: FakeModel, painter: FakeModel, settings: dict[str, Any], descriptions: dict[str, Any]
) -> AsyncGenerator[ASGIApp]:
    """The application in front of both, not yet listening."""
    async with listening(poet.app) as writes, listening(painter.app) as paints:
        models: dict[str, dict[str, Any]] = {"poet": {"url": writes}, "painter": {"url": paints, "kind": "image"}}
        for name, description in descriptions.items():
            models[name]["description"] = description
        yield create_app(Settings.model_validate({"models": models, "max_job_runs": 1, "grace_seconds": 1, **settings}))


@pytest_asyncio.fixture(loop_scope="module")
async def url(application: ASGIApp) -> AsyncGenerator[str]:
    async with listening(application) as address:
        yield address


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser) -> AsyncGenerator[Open]:
    """Opens an address in a context of its own; what the console complains of, and what goes to another host, fails the
    test, unless it is among `complaints`, which tests may add to."""
    contexts: list[BrowserContext] = []
    found: list[str] = []
    allowed: list[str] = []

    async def open_(address: str, *complaints: str, **options: Any) -> Page:
        options = {"locale": "en-US", "viewport": WIDE, **options}
        context = await browser.new_context(**options)
        context.set_default_timeout(LIMIT * 1000)
        contexts.append(context)
        allowed.extend(complaints)
        page = await context.new_page()

        def complain(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                found.append(message.text)

        page.on("console", complain)

        def fail(error: Error) -> None:
            found.append(str(error))

        page.on("pageerror", fail)

        def leave(request: Request) -> None:
            if not request.url.startswith((address.rstrip("/"), "blob:", "data:")):
                found.append(request.url)

        page.on("request", leave)
        await page.goto(address)
        return page

    yield open_
    for context in contexts:
        await context.close()
    assert [text for text in found if not any(part in text for part in allowed)] == []


@pytest.fixture
def shoot() -> Shoot:
    """A picture of the page, kept under data/page."""

    async def take(page: Page, name: str, *, full_page: bool = True) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        await page.screenshot(path=path, full_page=full_page, animations="disabled")
        return path

    return take


@pytest.fixture(scope="session")
def axe(npm_installed: Callable[[Path], Path]) -> str:
    """The source of axe-core."""
    return (npm_installed(PACKAGES) / "node_modules" / "axe-core" / "axe.min.js").read_text()
