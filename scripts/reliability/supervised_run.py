"""scripts/run with predictors of another kind; the supervisor and web are its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.local.supervisor import ProcessEnded, Supervisor
from scripts.loopback import HOST


def supervise(
    port: int, idle_seconds: float, make: Callable[[RunFolder], Sequence[ServedModel]], web_flags: Sequence[str] = ()
) -> int:
    """Serve the models that `make` returns until SIGTERM; the exit status. Where the port is in use it is 1."""
    folder = RunFolder(port)
    if not folder.hold():
        return 1
    try:
        models = make(folder)
        urls = json.dumps({model.name: model.url for model in models})
        web = [sys.executable, "-m", "web", "--host", HOST, "--port", str(port), "--models", urls]
        web += ["--log-level", "warning", *web_flags]
        Supervisor(models, web, folder, idle_seconds, lambda: print("all are up", flush=True)).run()
        return 0
    except ProcessEnded as error:
        print(error, flush=True)
        return 1
    finally:
        folder.release()
