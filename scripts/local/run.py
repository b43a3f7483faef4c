"""Serve models on this machine: a predictor for each while it is needed, and a web process in front of them.

scripts/run calls this, after making the environment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from contract import Kind
from predictor.errors import ModelError
from predictor.loading.model_source import check_source
from predictor.settings import NAME_PATTERN
from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.local.status import print_status
from scripts.local.supervisor import ProcessEnded, Supervisor
from scripts.loopback import HOST
from scripts.project import ROOT
from wire.listener import listen

EMBEDDED = ("poet", "painter")
PROMPTS: dict[Kind, str] = {"text": "写一首关于春雨的诗", "image": "画一只猫"}
IDLE_SECONDS = 300.0


def main() -> int:
    arguments = parse(sys.argv[1:])
    folder = RunFolder(arguments.port)
    if arguments.status:
        return print_status(folder.read(), arguments.port)
    try:
        serve(arguments, folder)
        return 0
    except (ProcessEnded, ModelError, OSError) as error:
        if str(error):
            print(f"scripts/run: {error}", file=sys.stderr)
        return 1
    finally:
        folder.release()


def serve(arguments: argparse.Namespace, folder: RunFolder) -> None:
    """Serve until a signal; raises a ModelError for a wrong model, an OSError for a port or folder in use."""
    sources = {arguments.name or Path(model).name: model for model in arguments.model}
    kinds = {name: check_source(source) for name, source in sources.items()}
    if not folder.hold():
        raise OSError(f"port {arguments.port} on {HOST} is in use by {describe_holder(folder)}")
    listen(HOST, arguments.port).close()  # fails here if the port is in use, before the models are loaded for nothing
    common = ["--host", HOST, "--log-level", "info" if arguments.verbose else "warning"]
    models = []
    for number, (name, source) in enumerate(sources.items()):
        if Path(source).exists():  # the servers run in another folder
            source = str(Path(source).resolve())
        command = [sys.executable, "-m", "predictor", "--model", source, "--name", name, *common]
        command += ["--quiet-seconds", "0", "--idle-seconds", str(arguments.idle)]
        models.append(ServedModel(name, kinds[name], listen(HOST, 0), folder.open_notices(number), command))
    urls = json.dumps({model.name: {"url": model.url, "kind": model.kind} for model in models})
    web = [sys.executable, "-m", "web", "--port", str(arguments.port), "--models", urls, *common]
    if arguments.idle:
        print(f"models fall asleep after {arguments.idle:g} s without a request (--idle 0: never)", flush=True)
    Supervisor(models, web, folder, arguments.idle, lambda: announce(kinds, arguments.port)).run()


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
    # Paths are relative to the folder that scripts/run was called in; what does not exist there is a hub id.
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
    """Print what is served, and commands that ask for it."""
    url = f"http://{HOST}:{port}/generate"
    print(f"\n{' and '.join(kinds)} {'is' if len(kinds) == 1 else 'are'} served at {url}; try\n")
    for kind in dict.fromkeys(kinds.values()):
        body = json.dumps({"prompt": PROMPTS[kind]}, ensure_ascii=False)
        form = " -H 'Accept: image/png' -o picture.png" if kind == "image" else ""
        print(f"  curl {url} -H 'Content-Type: application/json'{form} -d {shlex.quote(body)}")
    print("\nCtrl-C stops it.", flush=True)


def describe_holder(folder: RunFolder) -> str:
    """The scripts/run that has the folder and its port."""
    state = folder.read()
    if state is None:
        return "another scripts/run, which is just starting or stopping"
    return f"another scripts/run (process {state['pid']}), which serves {' and '.join(state['models'])}"


if __name__ == "__main__":
    sys.exit(main())
