"""`python -m predictor` whose engine dies in the step after a SIGUSR1."""

from __future__ import annotations

import signal
import sys
import threading

from predictor.__main__ import main
from predictor.engine.scheduler import Scheduler

advance = Scheduler._advance
doomed = threading.Event()


def advance_or_die(self: Scheduler) -> None:
    advance(self)
    if doomed.is_set():
        raise SystemExit("the device has gone")


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: doomed.set())
    Scheduler._advance = advance_or_die  # type: ignore[method-assign]
    sys.exit(main())
