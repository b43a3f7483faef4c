"""Send requests to models at random moments around the one at which they fall asleep, and count the outcomes.

Without --poet the predictors are stubs that start in half a second; the supervisor, web and the predictor's HTTP server
are the real ones. With --nap the poet's process stays, and its naps are the cycles; with --restore it is restored from
a snapshot at each wake-up. Exits with 0 if every request was answered correctly and no process, open file or memory
leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil

from scripts.local.run_folder import RunFolder
from scripts.loopback import HOST, free_port
from scripts.loopback_http import async_client, get
from scripts.progress import progress
from scripts.project import ROOT
from scripts.reliability import resource_usage
from scripts.reliability.resource_usage import ResourceUsage
from scripts.snapshot import criu

STUBS = ROOT / "tests" / "scripts" / "local" / "stub_run.py"
CHAT = "/openai/v1/chat/completions"
CLIENTS = 4
"""Of each model."""

ANSWER_SECONDS = 120.0
"""Longest that a request, or a change of all models' states, may take."""

CHANGE_SECONDS = 0.3
"""About as long as a stub takes to end, from the moment at which it may."""

POET_CHANGE_SECONDS = 0.4
"""The same of the poet."""

TOKENS = 8
"""Of a text: what is looked at is the moment at which it begins."""

WEB_KEEP_ALIVE_SECONDS = 0.3
"""So long web keeps a connection to a model; stubs are told --keep-alive."""

NAP_CHANGE_SECONDS = 0.08
"""About as long as a model takes to fall asleep in a process that stays."""

STAYING_SECONDS = 10.0
"""After so long without a request a process that naps leaves, which it does only in the end."""

RESTORED, NOT_RESTORED = "predictor: restored within", "predictor: not restored"
"""Lines of the launcher's output."""

_WAKE_UPS = re.compile(r"^shangcai_wake_up_seconds_count\{.*\} (\S+)$", re.MULTILINE)


class Clients:
    """They send around the moments at which models fall asleep, and count the outcomes."""

    def __init__(
        self, url: str, urls: dict[str, str], awake_seconds: float, echo: bool, change_seconds: float = CHANGE_SECONDS
    ) -> None:
        self._url = url
        """Of web."""

        self._urls = urls
        """Of the predictors, by model."""

        self._awake_seconds = awake_seconds
        """From a response until the model may fall asleep."""

        self._change_seconds = change_seconds
        """How long it takes to."""

        self._echo = echo
        """Whether models answer with the prompt."""

        self._random = random.Random(1)
        self._last_response = dict.fromkeys(urls, time.monotonic())
        self.outcomes: Counter[str] = Counter()
        self.longest_seconds = 0.0

    async def run(self, model: str, over: asyncio.Event) -> None:
        """All clients of a model send around the same moment, again and again."""
        number = 0
        while not over.is_set():
            delay = self._awake_seconds + self._random.uniform(-0.1, 1) * self._change_seconds
            moment = self._last_response[model] + delay
            prompt = f"0.0{number % 5} {model} {number}"
            await asyncio.gather(*(self._send(model, client, prompt, moment) for client in range(CLIENTS)))
            number += 1

    async def _send(self, model: str, client: int, prompt: str, moment: float) -> None:
        moment += self._random.gauss(0, self._change_seconds / 5)
        await asyncio.sleep(max(moment - time.monotonic(), 0))
        through_web = client % 2 == 0
        begun = time.monotonic()
        try:
            outcome = await (self._through_web(model, prompt) if through_web else self._directly(model, prompt))
        except httpx2.HTTPError as error:
            outcome = f"{type(error).__name__} {error}".rstrip()
        self._last_response[model] = time.monotonic()
        self.longest_seconds = max(self.longest_seconds, self._last_response[model] - begun)
        self.outcomes[f"{'web' if through_web else 'predictor'}: {outcome}"] += 1

    async def _through_web(self, model: str, prompt: str) -> str:
        async with async_client(timeout=ANSWER_SECONDS) as client:
            answer = await client.post(
                f"{self._url}/generate", json={"model": model, "prompt": prompt, "max_tokens": TOKENS}
            )
        if answer.status_code != httpx2.codes.OK:
            return answer.text
        text = answer.json()["text"]
        return "answered" if text == prompt or (text and not self._echo) else f"wrong answer {text}"

    async def _directly(self, model: str, prompt: str) -> str:
        """On a new connection each time; repeated after Retry-After while the model loads."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True, "max_tokens": TOKENS}
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            async with async_client(timeout=ANSWER_SECONDS) as client:
                answer = await client.post(self._urls[model] + CHAT, json=body, headers={"Connection": "close"})
            if answer.status_code != httpx2.codes.SERVICE_UNAVAILABLE or answer.json().get("phase") in (None, "failed"):
                break
            if time.monotonic() > deadline:
                return f"not answered for {ANSWER_SECONDS:g} s"
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        whole = answer.status_code == httpx2.codes.OK and answer.text.endswith("data: [DONE]\n\n")
        return "answered" if whole else answer.text[:500]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/hammer", description=__doc__)
    parser.add_argument("--cycles", type=int, default=500, help="how often models fall asleep, all together")
    parser.add_argument("--models", type=int, default=4, help="how many stubs there are")
    parser.add_argument("--idle", type=float, default=0.3, help="seconds")
    parser.add_argument("--keep-alive", type=float, default=1.2, help="seconds that a stub keeps a connection")
    parser.add_argument("--poet", action="store_true", help="the poet in the place of stubs, by scripts/run")
    parser.add_argument("--nap", type=float, default=0, help="the poet, which naps after so many seconds and stays")
    parser.add_argument(
        "--restore", action="store_true", help="the poet, restored at each wake-up: as root, with SNAPSHOT_CRIU"
    )
    arguments = parser.parse_args()
    if arguments.restore and not criu():
        parser.error("--restore: needs root, and CRIU 4.2 or later on the PATH or named by SNAPSHOT_CRIU")
    if arguments.nap:
        arguments.idle = STAYING_SECONDS
    arguments.poet = arguments.poet or arguments.restore or bool(arguments.nap)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the run is stopped, too
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        flags = ["--port", str(port), "--idle", str(arguments.idle)]
        if arguments.poet:
            module = "scripts.reliability.restored_run" if arguments.restore else "scripts.local.run"
            command = ["-m", module, *flags, "--model", str(ROOT / "models" / "poet")]
        else:
            command = [str(STUBS), *flags, "--models", str(arguments.models), "--behaviours", folder]
            command += ["--keep-alive", str(arguments.keep_alive)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PREDICTOR_NAP": str(arguments.nap)}
        environment["KEEPALIVE_SECONDS"] = str(WEB_KEEP_ALIVE_SECONDS)  # a connection keeps a model awake
        with output.open("wb") as out:
            run = subprocess.Popen([sys.executable, *command], stdout=out, stderr=out, env=environment, cwd=ROOT)
        try:
            return _hammer(arguments, run, port, output)
        finally:
            with suppress(ProcessLookupError):
                run.send_signal(signal.SIGTERM)
            run.wait(60)


def _hammer(arguments: argparse.Namespace, run: subprocess.Popen[bytes], port: int, output: Path) -> int:
    keep_alive = WEB_KEEP_ALIVE_SECONDS if arguments.poet else arguments.keep_alive
    states = _wait_until_asleep(run, port, output)
    before = resource_usage.measure(run.pid)
    urls = {name: model["url"] for name, model in states.items()}
    awake_seconds = arguments.nap or max(arguments.idle, keep_alive)
    change_seconds = CHANGE_SECONDS
    if arguments.poet:
        change_seconds = NAP_CHANGE_SECONDS if arguments.nap else POET_CHANGE_SECONDS
    clients = Clients(f"http://{HOST}:{port}", urls, awake_seconds, not arguments.poet, change_seconds)

    def cycles_now() -> int:
        return _naps(urls) if arguments.nap else _cycles(output)

    begun = time.monotonic()

    async def run_clients() -> None:
        over = asyncio.Event()
        running = [asyncio.create_task(clients.run(model, over)) for model in urls]
        with progress("cycles", arguments.cycles) as bar:
            while (cycles := await asyncio.to_thread(cycles_now)) < arguments.cycles and not any(
                one.done() for one in running
            ):
                bar.reach(cycles)
                await asyncio.sleep(1)
        over.set()
        await asyncio.gather(*running)

    asyncio.run(run_clients())
    seconds = time.monotonic() - begun
    cycles = cycles_now()
    _wait_until_asleep(run, port, output)
    after = resource_usage.measure(run.pid)
    children = psutil.Process(run.pid).children()
    run.send_signal(signal.SIGTERM)
    status = run.wait(60)
    left = [child.pid for child in children if child.is_running()]
    print(f"{cycles} cycles in {seconds:.0f} s; the longest answer took {clients.longest_seconds:.1f} s")
    for outcome, count in clients.outcomes.most_common():
        print(f"  {count:6d}  {outcome}")
    if arguments.restore:
        starts = output.read_text()
        print(f"restored {starts.count(RESTORED)} times, started as usual {starts.count(NOT_RESTORED)} times")
    print(f"before: {before}")
    print(f"after:  {after}")
    print(f"exit status {status}, processes left: {left}")
    good = {outcome.partition(": ")[2] for outcome in clients.outcomes} == {"answered"}
    good = good and status == 0 and not left and _nothing_leaked(before, after, len(urls))
    print("none is lost, nothing is left behind" if good else f"NOT as it should be\n{output.read_text()[-2000:]}")
    return 0 if good else 1


def _naps(urls: dict[str, str]) -> int:
    """From which the models' processes have woken."""
    return sum(int(float(number)) for url in urls.values() for number in _WAKE_UPS.findall(get(f"{url}/metrics").text))


def _cycles(output: Path) -> int:
    return len(re.findall(r": asleep$", output.read_text(), re.MULTILINE))


def _wait_until_asleep(run: subprocess.Popen[bytes], port: int, output: Path) -> dict[str, Any]:
    """Until all models are asleep and web answers; the models' entries in the state file.

    At the start, models may fall asleep before web has loaded; what it holds then would be too little to compare with.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        state = RunFolder(port).read()
        models: dict[str, Any] = state["models"] if state else {}
        if models and all(model["state"] == "asleep" for model in models.values()) and _web_answers(port):
            return models
        if run.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"scripts/hammer: the models do not fall asleep:\n{output.read_text()}")
        time.sleep(0.05)


def _web_answers(port: int) -> bool:
    try:
        get(f"http://{HOST}:{port}/healthz", timeout=5)
    except httpx2.HTTPError:
        return False
    return True


def _nothing_leaked(before: dict[str, ResourceUsage], after: dict[str, ResourceUsage], models: int) -> bool:
    """web closes a connection that the predictor has closed only when it needs the next one."""
    more_files = {"supervisor": 0, "web": CLIENTS * models}
    return all(after[name].within(usage, more_files[name]) for name, usage in before.items())


if __name__ == "__main__":
    sys.exit(main())
