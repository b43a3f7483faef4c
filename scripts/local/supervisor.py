"""Runs web, and a predictor for each model while it is needed.

The listening sockets of the predictors are held here for as long as this process runs, and every predictor inherits
its own. So a connection is never refused: while no predictor runs it waits in the kernel, and its coming is what starts
one. A predictor that is idle leaves by itself; whoever comes too late for it waits for the next. No data passes through
here.
"""

from __future__ import annotations

import http.client
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from contract import Kind, ProblemError, problems
from scripts.local.child_process import spawn
from scripts.local.model_process import Sleeper
from scripts.local.run_folder import RunFolder
from scripts.local.unavailable_responder import MOST, Refusals

HOST = "127.0.0.1"
STOP_SECONDS = 35.0
"""A little more than the grace both servers give what they have accepted."""

LOOK_SECONDS = 0.1
"""How often it is looked whether web answers, which says nothing by itself."""

TURN_SECONDS = 1.0
"""Longest sleep."""

NOTICE_BYTES = 4096


class Ended(Exception):
    """A child ended that the others are of no use without."""


@dataclass
class Served:
    """A model, where its predictors listen and where they tell how they are, and how they are started."""

    name: str
    kind: Kind
    listener: socket.socket
    notices: socket.socket
    command: Sequence[str]
    sleeper: Sleeper = field(default_factory=lambda: Sleeper(time.monotonic()))
    child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        host, port = self.listener.getsockname()
        return f"http://{host}:{port}"


class Supervisor:
    """Starts everything once, and then what is asked for. `announce` is called when all of it is ready."""

    def __init__(
        self,
        served: Sequence[Served],
        web: Sequence[str],
        port: int,
        folder: RunFolder,
        idle_seconds: float,
        announce: Callable[[], None],
    ) -> None:
        self._served = served
        self._web_command = web
        self._port = port
        self._folder = folder
        self._idle_seconds = idle_seconds
        self._announce = announce
        self._announced = False
        self._stopping = False
        self._begun = time.monotonic()
        self._epoch = time.time() - self._begun
        self._written: dict[str, Any] = {}
        self._web: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._refusals = Refusals(self._selector)
        self._alarm, self._wakeup = socket.socketpair()

    def run(self) -> None:
        """Until SIGINT or SIGTERM; an Ended when there is no use in going on."""
        self._handle_signals()
        try:
            for served in self._served:
                served.listener.setblocking(False)
                self._selector.register(served.notices, selectors.EVENT_READ, partial(self._hear, served))
                self._start(served)
            variables = {"IDLE_SECONDS": f"{self._idle_seconds:g}", "STATES_FILE": str(self._folder.state_file)}
            self._web = spawn(self._web_command, variables)
            while not self._stopping:
                self._turn()
                if self._web.poll() is not None:
                    raise Ended(_ending("web", self._web.returncode))
            print("\nstopping: what was accepted is finished first", flush=True)
        finally:
            self._stop()

    def _handle_signals(self) -> None:
        """Any of them ends the sleep in `_turn`."""

        def stop(*_: object) -> None:
            self._stopping = True

        for end in (self._alarm, self._wakeup):
            end.setblocking(False)
        self._selector.register(self._alarm, selectors.EVENT_READ, lambda: self._alarm.recv(NOTICE_BYTES))
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _turn(self) -> None:
        """Sleep until something happens, and do what is to be done then."""
        now = time.monotonic()
        for served in self._served:
            self._watch(served, served.sleeper.takes_connections(now) and len(self._refusals) < MOST)
        for key, _ in self._selector.select(self._seconds_to_sleep(now)):
            key.data()
        for served in self._served:
            self._reap(served)
        self._refusals.tidy(time.monotonic())
        if not (self._announced or self._stopping) and all(served.sleeper.wake_seconds for served in self._served):
            self._announced = self._web_answers()
            if self._announced:
                self._announce()
        self._write()

    def _seconds_to_sleep(self, now: float) -> float:
        coming = [one.sleeper.retry_at - now for one in self._served if not one.sleeper.running]
        longest = TURN_SECONDS if self._announced else LOOK_SECONDS
        return min([longest, *(seconds for seconds in coming if seconds > 0)])

    def _watch(self, served: Served, wanted: bool) -> None:
        watched = served.listener in self._selector.get_map()
        if wanted and not watched:
            self._selector.register(served.listener, selectors.EVENT_READ, partial(self._connected, served))
        elif watched and not wanted:
            self._selector.unregister(served.listener)

    def _connected(self, served: Served) -> None:
        now = time.monotonic()
        if not served.sleeper.refuses(now):
            self._start(served)
            return
        retry_after = served.sleeper.retry_at - now
        detail = f"Model {served.name} cannot be started: {served.sleeper.why}"
        problem = ProblemError(problems.UNAVAILABLE, detail, retry_after=retry_after, phase="failed")
        self._refusals.take(served.listener, problem, now)

    def _start(self, served: Served) -> None:
        variables = {"NOTIFY_SOCKET": served.notices.getsockname()}
        served.child = spawn(served.command, variables, served.listener)
        served.sleeper.start(time.monotonic())
        self._say(served)

    def _hear(self, served: Served) -> None:
        with suppress(BlockingIOError):
            while True:
                lines = served.notices.recv(NOTICE_BYTES).decode(errors="replace").splitlines()
                before = served.sleeper.state, served.sleeper.phase
                served.sleeper.hear(dict(line.split("=", 1) for line in lines if "=" in line), time.monotonic())
                if (served.sleeper.state, served.sleeper.phase) != before:
                    self._say(served)

    def _reap(self, served: Served) -> None:
        if served.child is None:
            return
        if served.sleeper.overdue(time.monotonic()):
            served.child.kill()
        if served.child.poll() is None:
            return
        self._hear(served)  # its last words
        status, served.child = served.child.returncode, None
        if not (served.sleeper.wake_seconds or self._stopping):  # so a mistake shows at the start
            raise Ended(_ending(f"the predictor of {served.name}", status))
        served.sleeper.end(status, time.monotonic())
        self._say(served)

    def _say(self, served: Served) -> None:
        """Of the first start everything, and later what has become of it."""
        sleeper = served.sleeper
        match sleeper.state:
            case "waking":
                text = sleeper.phase if not self._announced else "waking" if sleeper.phase == "starting" else None
            case "ready":
                text = f"ready after {sleeper.wake_seconds[-1]:.1f} s" if self._announced else None
            case _:
                text = f"{sleeper.state}: {sleeper.why}" if sleeper.why else sleeper.state
        if text:
            with suppress(OSError):  # a disk that is full, or a terminal that has gone
                print(f"{time.monotonic() - self._begun:6.1f} s  {served.name}: {text}", flush=True)

    def _web_answers(self) -> bool:
        web = http.client.HTTPConnection(HOST, self._port, timeout=TURN_SECONDS)
        try:
            web.request("GET", "/healthz")
            return web.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            web.close()

    def _write(self) -> None:
        """Say what has changed."""
        models = {served.name: self._document(served) for served in self._served}
        state = {"pid": os.getpid(), "port": self._port, "idle_seconds": self._idle_seconds, "models": models}
        if models != self._written and self._folder.write(state):
            self._written = models

    def _document(self, served: Served) -> dict[str, Any]:
        sleeper = served.sleeper
        waits = not sleeper.running and sleeper.retry_at > time.monotonic()
        return {
            "kind": served.kind,
            "url": served.url,
            "state": sleeper.state,
            "since": round(sleeper.since + self._epoch, 3),
            "phase": sleeper.phase,
            "why": sleeper.why,
            "retry_at": round(sleeper.retry_at + self._epoch, 3) if waits else None,
            "wake_seconds": list(sleeper.wake_seconds),
        }

    def _stop(self) -> None:
        """Stop web before the predictors that it may still wait for; kill what does not go."""
        self._stopping = True
        if self._web is not None:
            self._web.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            while self._web.poll() is None and time.monotonic() < deadline:
                self._turn()  # what web has accepted may need a model that is asleep
        predictors = [served.child for served in self._served if served.child is not None]
        for child in predictors:
            child.terminate()
        for child in [*predictors, *([self._web] if self._web else [])]:
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._refusals.close()


def _ending(what: str, status: int) -> str:
    """A child that ends with a status of its own has said why in a line of its own."""
    return f"{what} was ended by {signal.Signals(-status).name}" if status < 0 else ""
