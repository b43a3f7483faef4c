"""Serve models on this machine: a predictor for each while it is needed, and a web process in front of them.

scripts/run calls this, after making the environment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from contract import Kind
from predictor.errors import ModelError
from predictor.imports import imported_modules
from predictor.loading.description_file import read_description
from predictor.loading.model_source import NEARBY, check_source, kind_on_hub
from scripts.local.embedded_models import EMBEDDED
from scripts.local.embedded_weights import WRITER, WeightsMissingError, fetch_writer
from scripts.local.model_argument import OPTIONS, ModelArgument, parse_model
from scripts.local.processes.template_process import TemplateProcess
from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.local.status import print_status
from scripts.local.supervisor import ProcessEnded, Supervisor
from scripts.loopback import HOST
from scripts.project import ROOT
from wire.listener import listen

PROMPTS: dict[Kind, str] = {"text": "写一首关于春雨的诗", "image": "画一只猫"}
"""To try models with that are not embedded."""
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
    if not folder.hold():
        raise OSError(f"port {arguments.port} on {HOST} is in use by {describe_holder(folder)}")
    listen(HOST, arguments.port).close()  # fails here if the port is in use, before the models are loaded for nothing
    sources = {} if arguments.model else embedded_sources()
    embedded = {model.name: model for model in EMBEDDED if model.name in sources}
    asked: list[ModelArgument] = arguments.model or [ModelArgument(name, sources[name]) for name in embedded]
    nearby = (*NEARBY, ROOT / "models")
    shown = {one.name: check_source(one.source, one.kind, one.revision, nearby) for one in asked}
    # Found out here, the predictors need not do so each time that they wake up.
    kinds = {one.name: shown[one.name] or kind_on_hub(one.source, one.kind, one.revision, nearby) for one in asked}
    common = ["--host", HOST, "--log-level", "info" if arguments.verbose else "warning"]
    models = []
    forks = arguments.template == "auto" and arguments.idle > 0 and can_fork()
    modules_files: list[Path] = []
    tokenizers: list[str] = []
    for number, model in enumerate(asked):
        # The servers run in another folder, so that a path is made absolute.
        source = os.path.abspath(model.source) if os.path.exists(model.source) else model.source
        told = ["--model", source, "--name", model.name, *common]
        told += ["--quiet-seconds", "0", "--idle-seconds", str(arguments.idle)]
        kind = kinds[model.name]
        sockets = listen(HOST, 0), folder.open_notices(number)
        command, variables = [sys.executable, "-m", "predictor", *told], replace(model, kind=kind).variables
        # The template has imported only what is used; a model for which that is not enough is started afresh.
        forked = forks and not {"lean_imports", "compile"} & model.settings.keys()
        if forked:
            modules_files.append(folder.modules_file(number))
            variables[imported_modules.VARIABLE] = str(modules_files[-1])
            tokenizers += [source] if kind == "text" and os.path.isdir(source) else []
        models.append(ServedModel(model.name, kind, *sockets, command, variables, told if forked else None))
    entries: dict[str, dict[str, object]] = {}
    for served, one in zip(models, asked, strict=True):
        description = read_description(one.source).model_dump(exclude_none=True)
        entries[served.name] = {"url": served.url, "kind": served.kind, "description": description}
        if known := embedded.get(served.name):
            served.begins_asleep = known.begins_asleep
            entries[served.name] |= known.choice
    web = [sys.executable, "-m", "web", "--port", str(arguments.port), "--models", json.dumps(entries), *common]
    if arguments.idle:
        print(f"models fall asleep after {arguments.idle:g} s without a request (--idle 0: never)", flush=True)
    template = TemplateProcess(modules_files, tokenizers) if modules_files else None
    prompts = [(kinds[one.name], one.prompt) for one in embedded.values()]
    prompts = prompts or [(kind, PROMPTS[kind]) for kind in dict.fromkeys(kinds.values())]
    Supervisor(
        models, web, folder, arguments.idle, lambda: announce(list(kinds), prompts, arguments.port), template
    ).run()


def embedded_sources() -> dict[str, str]:
    """Where the embedded models are, by name: without the writer where its weights cannot be had, which a line says."""
    sources = {model.name: str(ROOT / "models" / model.name) for model in EMBEDDED}
    try:
        sources[WRITER.name] = str(fetch_writer())
    except WeightsMissingError as error:
        del sources[WRITER.name]
        print(f"the writer is left out, and the next start tries again to fetch its weights: {error}", flush=True)
    return sources


def can_fork() -> bool:
    """Whether a fork of a process that has imported everything is what a fresh process would be. On macOS it is not."""
    return sys.platform == "linux" and not os.environ.get("PREDICTOR_LEAN_IMPORTS")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/run",
        description="Serve /generate on this machine.",
        epilog=f"Options of a model are settings of its predictor: {', '.join(OPTIONS)}. `python -m predictor --help` "
        "says what they mean.",
    )
    parser.add_argument(
        "--model",
        action="append",
        help="SOURCE, NAME=SOURCE or NAME=SOURCE,OPTION=VALUE,…: a folder or hub id, its served name, and options, as "
        "in painter=stabilityai/sdxl-turbo,kind=image; may be given again (default: poet, painter and writer)",
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
    parser.add_argument(
        "--torch",
        choices=("auto", "cpu", "cuda"),
        help="build of torch that is installed on Linux; auto keeps the one that is there, and else takes cpu where "
        "there is no NVIDIA driver (default: $SHANGCAI_TORCH or auto)",
    )  # scripts/run has read it already
    parser.add_argument(
        "--template",
        choices=("auto", "off"),
        default="auto",
        help="keep a process with everything imported, of which a model that wakes up is forked (some 300 MB, Linux "
        "only); off: a model starts afresh (default: auto)",
    )
    parser.add_argument("--status", action="store_true", help="show how the models on --port are, and end")
    parser.add_argument("--verbose", action="store_true", help="show the servers' own log lines")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.port <= 65535:
        parser.error(f"--port: {arguments.port} is not a port; 1 to 65535 are")
    if not 0 <= arguments.idle < math.inf:
        parser.error(f"--idle: {arguments.idle} is no number of seconds; 0 or more are")
    texts = arguments.model or []
    if arguments.name is not None and len(texts) != 1:
        parser.error("--name: only one model can be given a name; --model NAME=SOURCE names each")
    os.chdir(arguments.called_from)  # paths are relative to it
    arguments.model = []
    for text in texts:
        try:
            arguments.model.append(parse_model(text, arguments.name))
        except ValueError as error:
            parser.error(f"--model {text}: {error}")
    names = [model.name for model in arguments.model]
    if len(set(names)) != len(names):
        parser.error(f"--model: two of them have the same name, {', '.join(names)}; --model NAME=SOURCE names each")
    return arguments


def announce(names: Sequence[str], prompts: Sequence[tuple[Kind, str]], port: int) -> None:
    """Print what is served, and a command for each prompt, which is for a model of a kind."""
    url = f"http://{HOST}:{port}/generate"
    key = ' -H "Authorization: Bearer $KEY"' if os.environ.get("CALLERS", "").lower() in ("keys", "jwt") else ""
    print(f"\n{enumerated(names)} {'is' if len(names) == 1 else 'are'} served at {url}; try\n")
    for kind, prompt in prompts:
        body = json.dumps({"prompt": prompt}, ensure_ascii=False)
        form = " -H 'Accept: image/png' -o picture.png" if kind == "image" else ""
        print(f"  curl {url}{key} -H 'Content-Type: application/json'{form} -d {shlex.quote(body)}")
    print("\nCtrl-C stops it.", flush=True)


def describe_holder(folder: RunFolder) -> str:
    """The scripts/run that has the folder and its port."""
    state = folder.read()
    if state is None:
        return "another scripts/run, which is just starting or stopping"
    return f"another scripts/run (process {state['pid']}), which serves {enumerated(state['models'])}"


def enumerated(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


if __name__ == "__main__":
    sys.exit(main())
