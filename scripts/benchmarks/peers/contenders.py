"""The servers that are compared: how each is started, asked and understood."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmarks.peers import environments, load, process_tree
from scripts.benchmarks.peers.environments import Environment
from scripts.benchmarks.peers.load import Load, LoadError, Measured
from scripts.loopback import HOST, free_port
from scripts.project import ROOT

START_SECONDS = 300.0
LOGS = ROOT / "data" / "peers"
SLOTS = 16
"""Texts at once of transformers serve; the static batches' BATCH is the same. Others choose for themselves."""


@dataclass(frozen=True)
class Api:
    """A path, the body that asks for a greedy text of n tokens, and where the text is in the answer."""

    path: str
    body: Callable[[str, int], dict[str, Any]]
    text: Callable[[Any], str]


def _plain_body(prompt: str, tokens: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": tokens}


def _completions(path: str, **more: Any) -> Api:
    """OpenAI's completions."""
    return Api(
        path,
        lambda prompt, tokens: {"prompt": prompt, "max_tokens": tokens, "temperature": 0} | more,
        lambda answer: str(answer["choices"][0]["text"]),
    )


@dataclass(frozen=True)
class Start:
    """What a server is to be started with. `upstream` is the port of the server before it, if it has one."""

    model: Path
    dtype: str
    port: int
    upstream: int = 0


@dataclass(frozen=True)
class Contender:
    """A server; `environment` is None for ours. `behind` names the one whose front it is."""

    name: str
    api: Api
    command: Callable[[Start], list[str]]
    environment: Environment | None = None
    variables: Callable[[Start], dict[str, str]] = field(default=lambda _: {})
    behind: str | None = None


@dataclass(frozen=True)
class Running:
    """A server that answers at `port`."""

    contender: Contender
    port: int
    pid: int

    @property
    def resident_bytes(self) -> int:
        return process_tree.resident_bytes(self.pid)

    def send(self, prompts: list[str], tokens: int, clients: int) -> Measured:
        api = self.contender.api
        return load.measure(Load(self.port, api.path, [api.body(prompt, tokens) for prompt in prompts], clients))

    def texts(self, measured: Measured) -> list[str]:
        return [self.contender.api.text(answer) for answer in measured.answers]


@contextmanager
def start(contender: Contender, model: Path, dtype: str, upstream: int = 0) -> Iterator[Running]:
    """Raises a TimeoutError, with the end of what the server has printed, if it answers no request in time."""
    wanted = Start(model, dtype, free_port(), upstream)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{contender.name.replace(' ', '-')}.log"
    with log.open("w+") as output:
        child = subprocess.Popen(
            contender.command(wanted),
            cwd=ROOT,
            env=os.environ | contender.variables(wanted),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,  # or the terminal's Ctrl-C would reach it while it is being ended
        )
        try:
            running = Running(contender, wanted.port, child.pid)
            _wait(running, child, log)
            yield running
        finally:
            process_tree.end(child)


def _wait(running: Running, child: subprocess.Popen[bytes], log: Path) -> None:
    """Until it has written one token: some listen long before they can."""
    deadline = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        if _listens(running.port):
            try:
                running.send(["a"], 1, 1)
                return
            except LoadError:
                pass
        time.sleep(0.1)
    raise TimeoutError(f"{running.contender.name} does not answer: {log.read_text()[-2000:]}")


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


def _predictor(*more: str) -> Callable[[Start], list[str]]:
    def command(wanted: Start) -> list[str]:
        flags = ["--model", str(wanted.model), "--name", "m", "--dtype", wanted.dtype, *_address(wanted)]
        flags += ["--max-waiting", "256", "--log-level", "error", "--quiet-seconds", "0"]  # more wait than in any burst
        return [sys.executable, "-m", "predictor", *flags, *more]

    return command


def _web(wanted: Start) -> list[str]:
    models = {"m": {"url": f"http://{HOST}:{wanted.upstream}", "kind": "text"}}
    flags = [*_address(wanted), "--log-level", "error", "--models", json.dumps(models)]
    return [sys.executable, "-m", "web", *flags]


def _address(wanted: Start) -> list[str]:
    return ["--host", HOST, "--port", str(wanted.port)]


def _static_batch(environment: Environment, module: str) -> Callable[[Start], list[str]]:
    return lambda _: [environment.program("python"), "-m", f"scripts.benchmarks.peers.{module}"]


def _variables(wanted: Start) -> dict[str, str]:
    address = {"HOST": HOST, "PORT": str(wanted.port), "MOSEC_ADDRESS": HOST, "MOSEC_PORT": str(wanted.port)}
    return {"MODEL": str(wanted.model), "DTYPE": wanted.dtype, "MOSEC_TIMEOUT": "600000", **address}


def _transformers_serve(wanted: Start) -> list[str]:
    cache = ["--cb-block-size", "256", "--cb-num-blocks", str(4 * SLOTS), "--cb-max-batch-tokens", "512"]
    flags = [*_address(wanted), "--dtype", wanted.dtype, "--device", "cpu", "--continuous-batching", *cache]
    return [environments.TRANSFORMERS_SERVE.program("transformers"), "serve", str(wanted.model), *flags]


def _vllm(wanted: Start) -> list[str]:
    flags = ["--model", str(wanted.model), "--served-model-name", "m", "--dtype", wanted.dtype, *_address(wanted)]
    flags += ["--max-model-len", "1024", "--generation-config", "vllm"]
    return [environments.VLLM.program("python"), "-m", "vllm.entrypoints.openai.api_server", *flags]


_MOSEC_API = Api("/inference", _plain_body, lambda answer: str(answer["text"]))
_LITSERVE_API = Api("/predict", _plain_body, lambda answer: str(answer["text"]))
_OUR_API = _completions("/openai/v1/completions", model="m")
_WEB_API = Api("/generate", lambda *asked: _plain_body(*asked) | {"temperature": 0}, lambda answer: str(answer["text"]))

STATIC = ("mosec", "litserve", "transformers serve")
"""What is built around transformers' own `generate` or its batching."""

VLLM = "vllm"

NAIVE = "mosec"
"""The plainest way to serve a model; memory is compared with its."""

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            "mosec", _MOSEC_API, _static_batch(environments.MOSEC, "mosec_server"), environments.MOSEC, _variables
        ),
        Contender(
            "litserve",
            _LITSERVE_API,
            _static_batch(environments.LITSERVE, "litserve_server"),
            environments.LITSERVE,
            _variables,
        ),
        Contender(
            "transformers serve",
            _completions("/v1/completions"),
            _transformers_serve,
            environments.TRANSFORMERS_SERVE,
        ),
        Contender(
            VLLM,
            _completions("/v1/completions", model="m", ignore_eos=True),
            _vllm,
            environments.VLLM,
            lambda _: {"VLLM_CPU_KVCACHE_SPACE": "1"},
        ),
        Contender("predictor", _OUR_API, _predictor()),
        Contender("web", _WEB_API, _web, behind="predictor"),
        Contender("predictor plain", _OUR_API, _predictor("--no-pack-weights")),
        Contender("web plain", _WEB_API, _web, behind="predictor plain"),
    )
}
