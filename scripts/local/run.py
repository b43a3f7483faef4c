"""Serve models on this machine: a predictor for each while it is needed, and a web process in front of them.

Called by scripts/run, which makes the environment first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract import Kind
from predictor.errors import ModelError
from predictor.loading.model_source import check_source
from predictor.settings import NAME_PATTERN
from scripts.local.child_process import ROOT
from scripts.local.run_folder import RunFolder
from scripts.local.supervisor import HOST, Ended, Served, Supervisor
from wire.listener import listen

EMBEDDED = ("poet", "painter")
PROMPTS: dict[Kind, str] = {"text": "写一首关于春雨的诗", "image": "画一只猫"}
IDLE_SECONDS = 300.0


def main() -> int:
    arguments = parse(sys.argv[1:])
    folder = RunFolder(arguments.port)
    if arguments.status:
        return show(folder.read(), arguments.port)
    try:
        sources = {arguments.name or Path(model).name: model for model in arguments.model}
        kinds = {name: check_source(source) for name, source in sources.items()}
        if not folder.hold():
            raise OSError(f"port {arguments.port} on {HOST} is in use by {holder(folder)}")
        listen(HOST, arguments.port).close()  # said here, before the models are loaded for nothing
        common = ["--host", HOST, "--log-level", "info" if arguments.verbose else "warning"]
        served = []
        for number, (name, source) in enumerate(sources.items()):
            if Path(source).exists():  # the servers run in another folder
                source = str(Path(source).resolve())
            command = [sys.executable, "-m", "predictor", "--model", source, "--name", name, *common]
            command += ["--quiet-seconds", "0", "--idle-seconds", str(arguments.idle)]
            served.append(Served(name, kinds[name], listen(HOST, 0), folder.open_socket(number), command))
        models = json.dumps({model.name: {"url": model.url, "kind": model.kind} for model in served})
        web = [sys.executable, "-m", "web", "--port", str(arguments.port), "--models", models, *common]
        if arguments.idle:
            print(f"models fall asleep after {arguments.idle:g} s without a request (--idle 0: never)", flush=True)
        Supervisor(served, web, arguments.port, folder, arguments.idle, lambda: announce(kinds, arguments.port)).run()
        return 0
    except (Ended, ModelError, OSError) as error:
        if str(error):
            print(f"scripts/run: {error}", file=sys.stderr)
        return 1
    finally:
        folder.release()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/run", description="Serve /generate on this machine.")
    parser.add_argument(
        "--model", action="append", help="folder or hub id; may be given again (default: the poet and the painter)"
    )
    parser.add_argument("--called-from", type=Path, default=Path(), help=argparse.SUPPRESS)  # scripts/run tells it
    parser.add_argument("--name", help="served name of the only model (default: the last part of its path)")
    parser.add_argument(
        "--port", type=int, default=os.environ.get("PORT") or "8080", help="port of /generate (default: $PORT or 8080)"
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=IDLE_SECONDS,
        help="a model that nobody asks for anything for so many seconds gives its memory back, and the next request "
        f"starts it again; 0: never (default: {IDLE_SECONDS:g})",
    )
    parser.add_argument("--status", action="store_true", help="show how the models on --port are, and end")
    parser.add_argument("--verbose", action="store_true", help="show the servers' own log lines")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.port <= 65535:
        parser.error(f"--port: {arguments.port} is not a port; 1 to 65535 are")
    if not 0 <= arguments.idle < math.inf:
        parser.error(f"--idle: {arguments.idle} is no number of seconds; 0 or more are")
    arguments.model = arguments.model or [str(ROOT / "models" / name) for name in EMBEDDED]
    # Folders are relative to where scripts/run was called; what is no folder there is a hub id.
    beside = [arguments.called_from / model for model in arguments.model]
    arguments.model = [
        str(path) if path.exists() else model for path, model in zip(beside, arguments.model, strict=True)
    ]
    names = [arguments.name] if arguments.name else [Path(model).name for model in arguments.model]
    if len(names) != len(arguments.model):
        parser.error("--name: only one model can be given a name")
    if len(set(names)) != len(names):
        parser.error(f"--model: two of them have the same name, {', '.join(names)}")
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name):
            parser.error(f"--name: {name!r} cannot be part of an address; give one of letters, digits and . _ -")
    return arguments


def announce(kinds: Mapping[str, Kind], port: int) -> None:
    """Say what is served, and how to ask for it."""
    url = f"http://{HOST}:{port}/generate"
    print(f"\n{' and '.join(kinds)} {'is' if len(kinds) == 1 else 'are'} served at {url}; try\n")
    for kind in dict.fromkeys(kinds.values()):
        body = json.dumps({"prompt": PROMPTS[kind]}, ensure_ascii=False)
        form = " -H 'Accept: image/png' -o picture.png" if kind == "image" else ""
        print(f"  curl {url} -H 'Content-Type: application/json'{form} -d {shlex.quote(body)}")
    print("\nCtrl-C stops it.", flush=True)


def show(state: Mapping[str, Any] | None, port: int) -> int:
    """A line for each model; the exit status."""
    if state is None:
        print(f"scripts/run: nothing runs on port {port} that scripts/run has started", file=sys.stderr)
        return 1
    now = time.time()
    for name, model in state["models"].items():
        since = time.strftime("%H:%M:%S", time.localtime(model["since"]))
        parts = [f"{name}: {model['state']} since {since}, {now - model['since']:.0f} s"]
        if model["phase"]:
            parts.append(model["phase"])
        if model["state"] == "asleep" and model["wake_seconds"]:
            parts.append(f"wakes up in {statistics.median(model['wake_seconds']):.1f} s")
        if model["why"]:
            parts.append(model["why"])
        if model["retry_at"]:
            parts.append(f"a request starts it again in {max(model['retry_at'] - now, 0):.0f} s")
        print("; ".join(parts))
    return 0


def holder(folder: RunFolder) -> str:
    """Who has the port, as far as it says so."""
    state = folder.read()
    if state is None:
        return "another scripts/run, which is just starting or stopping"
    return f"another scripts/run (process {state['pid']}), which serves {' and '.join(state['models'])}"


if __name__ == "__main__":
    sys.exit(main())
