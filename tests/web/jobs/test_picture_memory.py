"""A process holds so many bytes of pictures at a time, and no more."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract import GenerationRequest, ProblemError, problems
from tests.support.jobs import Replica, ScriptedBackend, hang, submitted
from tests.support.waiting import SECONDS, eventually
from tests.support.web.job_requests import CAT, LIVE, PNG, ended, submit
from tests.support.web.samples import Sample
from web.app import create_app
from web.jobs import picture_memory, results
from web.jobs.journal import JobJournal
from web.jobs.picture_memory import PictureMemory, picture_bytes, result_bytes
from web.jobs.record import JobRecord
from web.rest.picture_call import picture_call
from web.settings import Settings

Handler = Callable[[httpx2.Request], httpx2.Response]
Opened = Callable[..., Any]

ONE = 4 * 64 * 64 * 4 // 3 + 2**16 * 4 // 3
"""Bytes of a picture of 64x64 pixels, at most."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_memory, "WAIT_SECONDS", 0.01)


async def hold(memory: PictureMemory, size: int, inside: list[int], leave: asyncio.Event) -> None:
    async with memory.held(size):
        inside.append(size)
        await leave.wait()


async def test_who_finds_no_room_waits_until_there_is() -> None:
    memory, inside, first, rest = PictureMemory(10), list[int](), asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(hold(memory, 6, inside, first))]
    tasks += [asyncio.create_task(hold(memory, size, inside, rest)) for size in (5, 4, 1)]
    await eventually(lambda: inside == [6])
    first.set()
    await eventually(lambda: inside == [6, 5, 4, 1])  # in their order: small ones do not overtake
    rest.set()
    await asyncio.gather(*tasks)


@pytest.mark.usefixtures("impatient")
async def test_who_waits_in_vain_is_told_when_to_come_again() -> None:
    memory = PictureMemory(10)
    async with memory.held(6):
        with pytest.raises(ProblemError) as refused:
            async with memory.held(5):
                raise AssertionError("there is no room")
        assert refused.value.kind is problems.OVERLOADED
        assert refused.value.headers["Retry-After"]
        async with memory.held(4):
            pass
    async with memory.held(10):
        pass


async def test_who_leaves_while_waiting_takes_nothing() -> None:
    memory, inside, leave = PictureMemory(10), list[int](), asyncio.Event()
    async with memory.held(6):
        waiting = asyncio.create_task(hold(memory, 6, inside, leave))
        behind = asyncio.create_task(hold(memory, 4, inside, leave))
        await asyncio.sleep(0)
        assert inside == []
        waiting.cancel()
        await eventually(lambda: inside == [4])
    leave.set()
    await behind
    async with memory.held(10):
        pass


@pytest.mark.usefixtures("impatient")
async def test_what_is_larger_than_everything_is_alone() -> None:
    memory = PictureMemory(10)
    async with memory.held(11):
        with pytest.raises(ProblemError):
            async with memory.held(1):
                pass
        async with memory.held(0):  # texts do not wait for pictures
            pass


def test_how_much_is_read_follows_from_the_request() -> None:
    small, large = GenerationRequest(prompt="x", size="64x64"), GenerationRequest(prompt="x", n=8)
    assert picture_bytes(small) == ONE
    assert picture_bytes(large) > 4 / 3 * 4 * 2_048**2
    assert picture_bytes(large, 64 * 64) == ONE
    assert picture_call("painter", small, previews=True).answer_bytes < 2_000_000  # was 50,331,648
    assert picture_call("painter", large, previews=False).answer_bytes < 200_000_000  # was 402,653,184
    assert result_bytes(small, "image") < 2_000_000  # was 268,435,456


@pytest.fixture
def asked() -> list[httpx2.Request]:
    return []


@pytest.fixture
async def client(opened: Opened, painter: Handler, asked: list[httpx2.Request], tmp_path: Path) -> httpx2.AsyncClient:
    """A web that has room for one picture of 64x64."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return painter(request)

    models = {"painter": {"url": "http://painter.test", "kind": "image"}}
    settings: dict[str, Any] = {"models": models, "picture_bytes": ONE, "artifacts_url": tmp_path.as_uri()}
    made: httpx2.AsyncClient = await opened(create_app(Settings(**settings), httpx2.MockTransport(answer)))
    return made


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("headers", [{}, PNG, LIVE], ids=["JSON", "PNG", "SSE"])
async def test_a_model_is_asked_for_no_picture_that_has_no_room(
    client: httpx2.AsyncClient, asked: list[httpx2.Request], monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    location = await submit(client, CAT | {"size": "64x64"})
    assert (await ended(client, location))["state"] == "completed"
    monkeypatch.setattr(PictureMemory, "_let_in", lambda _: None)
    answer = await client.post("/generate", json=CAT | {"size": "64x64"}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (503, problems.OVERLOADED.uri)
    assert answer.headers["Retry-After"]
    assert len(asked) == 1
    for path, form in ((location, {}), (location, PNG), (f"{location}/images/0", {}), (f"{location}?images=url", {})):
        answer = await client.get(path, headers=form)  # nor is a stored one read
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("stored", ["in the store", "as artifacts"])
async def test_pictures_give_their_room_back_in_every_form(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    """Were one kept, the next request would wait for ever."""
    if stored == "as artifacts":
        monkeypatch.setattr(results, "EVENT_BYTES", 0)
    async with asyncio.timeout(SECONDS):
        for headers in ({}, PNG, LIVE, {"Prefer": "wait=59"}, {"Prefer": "wait=59", **PNG}):
            assert (await client.post("/generate", json=CAT, headers=headers)).status_code == 200
        location = await submit(client, CAT)
        await ended(client, location)
        for headers in ({}, PNG, LIVE):
            assert (await client.get(location, headers=headers)).status_code == 200
            assert (await client.get(f"{location}?images=url", headers=headers)).status_code == 200
        for path in (f"{location}/images/0", f"{location}/images/9"):
            assert (await client.get(path)).status_code == (200 if path.endswith("0") else 404)
        for headers in ({}, LIVE):
            assert (await client.post("/generate?images=url", json=CAT, headers=headers)).status_code == 200
        request = {"prompt": "x", "kind": "image", "n": 3}
        assert len((await client.post("/generate", json=request)).json()["images"]) == 3


async def test_a_job_that_waits_for_its_next_attempt_keeps_nothing_of_the_last_answer(replica: Replica) -> None:
    class Answer(bytearray):
        """What had come of it."""

    answers = list[weakref.ref[Answer]]()

    async def break_off_within_a_picture(_record: JobRecord, _journal: JobJournal) -> None:
        answer = Answer(b"iVBOR")
        answers.append(weakref.ref(answer))
        try:
            raise ConnectionError("It is gone.")
        except ConnectionError as error:
            raise ProblemError(problems.BAD_UPSTREAM, f"{len(answer)} bytes came.", retry_after=30) from error

    backend = ScriptedBackend(break_off_within_a_picture, hang)
    jobs = await replica(backend)
    await submitted(jobs)
    await eventually(lambda: bool(answers) and answers[0]() is None)
    assert len(backend.runs) == 1


async def test_the_metrics_say_what_is_held() -> None:
    memory, inside, leave = PictureMemory(10), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(memory, size, inside, leave)) for size in (7, 5)]
    await eventually(lambda: inside == [7])
    assert (Sample("picture_bytes").value, Sample("picture_most_bytes").value) == (7, 10)
    leave.set()
    await asyncio.gather(*tasks)
    assert Sample("picture_bytes").value == 0
