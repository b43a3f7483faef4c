"""Runs web, and a predictor for each model while it is needed.

The supervisor holds the listening sockets of the predictors for as long as it runs, and every predictor inherits its
own. So a connection is never refused: while no predictor runs, it waits in the kernel, and the supervisor starts one. A
predictor that is idle ends by itself; a connection that comes too late for it waits for the next. The supervisor passes
no data on.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from predictor.system_calls import adopt_orphans
from scripts.local.processes.child_process import ChildProcess, reap_orphans
from scripts.local.processes.model_process import describe_end
from scripts.local.processes.template_process import TemplateProcess
from scripts.local.processes.web_process import WebProcess
from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.local.unavailable_responder import UnavailableResponder

STOP_SECONDS = 35.0
"""Longest wait for a process after SIGTERM: a little more than the grace period of both servers."""

PROBE_SECONDS = 0.1
"""How often web is asked whether it answers, until it does: it reports nothing by itself."""

TURN_SECONDS = 1.0
"""Longest sleep of the loop."""

WAKEUP_BYTES = 4096


class ProcessEnded(Exception):
    """A process ended without which the others are of no use. Its text is empty where it has printed why."""


class Supervisor:
    """Starts everything once but what begins asleep, and after that each model when it is asked for."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        web_command: Sequence[str],
        folder: RunFolder,
        idle_seconds: float,
        announce: Callable[[], None],
        template: TemplateProcess | None = None,
    ) -> None:
        """`announce` is called once, when web and all awaited models are ready. `idle_seconds` 0: models never fall
        asleep. They are forked from the `template` where there is one."""
        self._models = models
        self._folder = folder
        self._idle_seconds = idle_seconds
        self._announce = announce
        self._template = template
        self._announced = False
        self._stopping = False
        self._hurried = False
        self._begun = time.monotonic()
        self._epoch = time.time() - self._begun
        self._written: dict[str, Any] = {}
        variables = {"IDLE_SECONDS": f"{idle_seconds:g}", "STATES_FILE": str(folder.state_file)}
        self._web = WebProcess(web_command, variables, folder.port)
        self._selector = selectors.DefaultSelector()
        if template is not None:
            template.on_close = self._forget
        self._responder = UnavailableResponder(self._selector)
        self._signal_reader, self._signal_writer = socket.socketpair()

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP; raises a ProcessEnded when the first start of web or a model has failed.

        A second SIGINT kills what is still being finished.
        """
        self._handle_signals()
        try:
            self._template = self._template if self._template and adopt_orphans() else None
            for model in self._models:
                model.listener.setblocking(False)
                self._selector.register(model.notices, selectors.EVENT_READ, partial(self._read_notices, model))
                if model.awaited:
                    self._start(model)
            self._web.start()
            while not self._stopping:
                self._turn()
                self._watch_web()
                self._watch_template()
            _say("\nstopping: what was accepted is finished first; Ctrl-C again ends it at once")
        finally:
            self._stop()

    def _handle_signals(self) -> None:
        """Each signal also ends the sleep in `_turn`."""

        def stop(number: int, _: object) -> None:
            if self._stopping and number == signal.SIGINT:  # a terminal that closes may send SIGHUP twice, too
                self._hurried = True
            self._stopping = True

        for end in (self._signal_reader, self._signal_writer):
            end.setblocking(False)
        self._selector.register(
            self._signal_reader, selectors.EVENT_READ, lambda: self._signal_reader.recv(WAKEUP_BYTES)
        )
        signal.set_wakeup_fd(self._signal_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _turn(self) -> None:
        """Sleep until something happens, and handle it."""
        now = time.monotonic()
        for model in self._models:
            self._watch(model, model.process.takes_connections(now) and not self._responder.full)
        for key, _ in self._selector.select(self._seconds_to_sleep(now)):
            key.data()
        for model in self._models:
            self._reap(model)
        if self._template is not None:
            reap_orphans({*self._template.pids, *(child.pid for child in self._children)})
        self._responder.close_expired(time.monotonic())
        awaited = any(model.awaited for model in self._models)
        if self._web.answers and not (awaited or self._announced or self._stopping):
            self._announced = True
            self._announce()
        self._write_state()

    def _seconds_to_sleep(self, now: float) -> float:
        retries = [one.process.retry_at - now for one in self._models if not one.process.running]
        if self._web.child is None:
            retries.append(self._web.retry_at - now)
        longest = TURN_SECONDS if self._announced and self._web.answers else PROBE_SECONDS
        return min([longest, *(seconds for seconds in retries if seconds > 0)])

    def _watch_web(self) -> None:
        """Start web again once it has ended; raises a ProcessEnded if nothing has been served yet."""
        now = time.monotonic()
        status = self._web.exit_status(now)
        if status is not None:
            if not self._announced:
                raise ProcessEnded(_unexplained_end("web", status))
            lost = "" if os.environ.get("STORE_URL") else "; its jobs were in memory, and are lost"
            self._print(f"web: {describe_end(status)}, and is started again{lost}")
        elif self._web.child is None and now >= self._web.retry_at:
            self._web.start()
        elif self._web.child is not None and not self._web.answers and self._web.ask() and self._announced:
            self._print("web: answers again")

    def _watch_template(self) -> None:
        """Start the template while nobody waits for a model, and be told when it says something."""
        template, now = self._template, time.monotonic()
        if template is None:
            return
        if template.overdue(now):
            self._print_template(template)
        waking = any(model.process.state == "waking" for model in self._models)
        if self._announced and not waking and template.due(now):
            template.start()
            if template.control is not None:
                self._selector.register(template.control, selectors.EVENT_READ, self._read_template)

    def _forget(self, control: socket.socket) -> None:
        """Before it is closed: its number may be another's at once."""
        if control in self._selector.get_map():
            self._selector.unregister(control)

    def _read_template(self) -> None:
        if self._template is not None and self._template.control is not None and self._template.read():
            self._print_template(self._template)

    def _print_template(self, template: TemplateProcess) -> None:
        if template.state == "ready":
            self._print(f"template: ready, {template.resident_bytes >> 20} MiB of memory; models wake up from it")
        elif template.why:
            again = "models start afresh from now on" if template.given_up else "it is started again"
            self._print(f"template: {template.why}; {again}")

    def _watch(self, model: ServedModel, wanted: bool) -> None:
        """Be told of connections to the model, or no longer: those to a running process are its own."""
        watched = model.listener in self._selector.get_map()
        if wanted and not watched:
            self._selector.register(model.listener, selectors.EVENT_READ, partial(self._connected, model))
        elif watched and not wanted:
            self._selector.unregister(model.listener)

    def _connected(self, model: ServedModel) -> None:
        now = time.monotonic()
        if model.process.refuses_connections(now):
            self._responder.accept(model.listener, model.problem, now)
        else:
            self._start(model)

    def _start(self, model: ServedModel) -> None:
        template, ready = self._template, self._template is not None and self._template.state == "ready"
        model.start(template)
        if template is not None and ready and template.state == "off":
            self._print_template(template)
        self._print_state(model)

    def _read_notices(self, model: ServedModel) -> None:
        for _ in model.read_notices():
            self._print_state(model)
            if self._template is not None and model.process.state == "ready":
                self._template.learn()

    def _reap(self, model: ServedModel) -> None:
        status = model.exit_status()
        if status is None:
            return
        self._read_notices(model)  # sent just before it ended
        if model.awaited and not self._stopping:  # a mistake is shown by the first start
            raise ProcessEnded(_unexplained_end(f"the predictor of {model.name}", status))
        model.process.ended(status, time.monotonic())
        self._print_state(model)

    def _print_state(self, model: ServedModel) -> None:
        """Print all phases of the first start; later, only changes of state."""
        process = model.process
        match process.state:
            case "waking":
                text = process.phase if not self._announced else "waking" if process.phase == "starting" else None
            case "ready":
                text = f"ready after {process.wake_seconds[-1]:.1f} s" if self._announced else None
            case _:
                text = f"{process.state}: {process.failure}" if process.failure else process.state
        if text:
            self._print(f"{model.name}: {text}")

    def _print(self, text: str) -> None:
        _say(f"{time.monotonic() - self._begun:6.1f} s  {text}")

    def _write_state(self) -> None:
        """Write the state file if anything in it has changed; a failed write is tried again at the next turn."""
        state = {
            "pid": os.getpid(),
            **self._web.document(),
            "idle_seconds": self._idle_seconds,
            "models": {model.name: model.document(self._epoch) for model in self._models},
            "template": None if self._template is None else self._template.document(),
        }
        cleaned = not self._folder.state_file.exists()  # /tmp is cleaned on some machines
        if (state != self._written or cleaned) and self._folder.write(state):
            self._written = state

    def _stop(self) -> None:
        """Stop web before the predictors, which it may still need; kill what does not end in time."""
        self._stopping = True
        web = self._web.child
        if web is not None:
            web.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            while web.poll() is None and time.monotonic() < deadline and not self._hurried:
                self._turn()  # requests that web has accepted may need a model that is asleep
        for model in self._models:
            if model.child is not None:
                model.child.terminate()
        children = self._children
        deadline = time.monotonic() + STOP_SECONDS
        while any(child.poll() is None for child in children) and time.monotonic() < deadline and not self._hurried:
            self._sleep_until_signal()
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        if self._template is not None:
            self._template.stop()
        self._responder.close()

    @property
    def _children(self) -> list[ChildProcess]:
        """Web and the predictors, as far as they run."""
        children: list[ChildProcess | None] = [self._web.child, *(model.child for model in self._models)]
        return [child for child in children if child is not None]

    def _sleep_until_signal(self) -> None:
        """SIGCHLD is one."""
        ready, _, _ = select.select([self._signal_reader], [], [], TURN_SECONDS)
        if ready:
            self._signal_reader.recv(WAKEUP_BYTES)


def _say(text: str) -> None:
    with suppress(OSError):  # the disk is full, or the terminal has gone
        print(text, flush=True)


def _unexplained_end(what: str, status: int) -> str:
    """Empty unless a signal ended it: a process that exits by itself has printed why."""
    return f"{what} {describe_end(status)}" if status < 0 else ""
