"""Serve models on this machine: a predictor for each and a web process, watched and stopped together.

Called by scripts/run, which makes the environment first.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx

from contract import Kind
from predictor.engine import ModelError
from predictor.settings import NAME_PATTERN
from predictor.source import check_source
from wire.listener import listen

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
EMBEDDED = ("poet", "painter")
PROMPTS: dict[Kind, str] = {"text": "写一首关于春雨的诗", "image": "画一只猫"}
POLL_SECONDS = 0.1
STOP_SECONDS = 35.0
"""A little more than the grace both servers give what they have accepted."""


Children = dict[str, subprocess.Popen[bytes]]
"""By what is said of them, in the order of their start."""


@dataclass(frozen=True)
class Served:
    """A model, what it makes, and where its predictor listens."""

    name: str
    source: str
    kind: Kind
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


class Stop(Exception):
    """SIGINT or SIGTERM came."""


class Ended(Exception):
    """A child ended by itself."""


def main() -> int:
    arguments = parse(sys.argv[1:])
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, raise_stop)
    children: Children = {}
    try:
        listen(HOST, arguments.port).close()  # said here, before the model is loaded for nothing
        served = [serve(source, arguments.name) for source in arguments.model]
        common = ["--host", HOST, "--log-level", "info" if arguments.verbose else "warning"]
        for model in served:
            flags = ["--port", str(model.port), "--model", model.source, "--name", model.name, "--quiet-seconds", "0"]
            children[f"the predictor of {model.name}"] = start("predictor", [*flags, *common])
        models = json.dumps({model.name: {"url": model.url, "kind": model.kind} for model in served})
        children["web"] = start("web", ["--port", str(arguments.port), "--models", models, *common])
        begun = time.monotonic()
        for model in served:
            wait_until_ready(children, f"{model.url}/v1/models/{model.name}", model.name, begun)
        wait_until_ready(children, f"http://{HOST}:{arguments.port}/healthz", "web", begun)
        announce(served, arguments.port)
        while True:
            check(children)
            time.sleep(POLL_SECONDS)
    except Stop:
        print("\nstopping: what was accepted is finished first", flush=True)
        return 0
    except (Ended, ModelError, OSError) as error:
        if str(error):
            print(f"scripts/run: {error}", file=sys.stderr)
        return 1
    finally:
        stop(children)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/run", description="Serve /generate on this machine.")
    parser.add_argument(
        "--model", action="append", help="folder or hub id; may be given again (default: the poet and the painter)"
    )
    parser.add_argument("--name", help="served name of the only model (default: the last part of its path)")
    parser.add_argument(
        "--port", type=int, default=os.environ.get("PORT") or "8080", help="port of /generate (default: $PORT or 8080)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the servers' own log lines")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.port <= 65535:
        parser.error(f"--port: {arguments.port} is not a port; 1 to 65535 are")
    arguments.model = arguments.model or [str(ROOT / "models" / name) for name in EMBEDDED]
    names = [arguments.name] if arguments.name else [Path(model).name for model in arguments.model]
    if len(names) != len(arguments.model):
        parser.error("--name: only one model can be given a name")
    if len(set(names)) != len(names):
        parser.error(f"--model: two of them have the same name, {', '.join(names)}")
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name):
            parser.error(f"--name: {name!r} cannot be part of an address; give one of letters, digits and . _ -")
    return arguments


def serve(source: str, name: str | None) -> Served:
    """What to serve `source` as, on a free port; a ModelError when it can be seen to be none."""
    kind = check_source(source)
    if Path(source).exists():  # the servers run in another folder
        source = str(Path(source).resolve())
    with listen(HOST, 0) as free:
        return Served(name or Path(source).name, source, kind, free.getsockname()[1])


def raise_stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stop


def start(module: str, flags: list[str]) -> subprocess.Popen[bytes]:
    # A session of its own keeps the terminal's Ctrl-C from the children: they are stopped in order, by us.
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags], cwd=ROOT, start_new_session=True, preexec_fn=end_with_parent
    )


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when this supervisor dies, however it dies (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def wait_until_ready(children: Children, url: str, what: str, begun: float) -> None:
    """Poll `url` until it answers 200, and print each phase it reports on the way, in seconds since `begun`."""
    shown = ""
    while True:
        check(children)
        try:
            answer = httpx.get(url, timeout=5, trust_env=False)
            if answer.is_success:
                return
            phase = answer.json().get("phase", "")
        except (httpx.HTTPError, ValueError):
            phase = shown or "starting"  # later it is an end, which `check` will tell
        if phase not in ("", "failed", shown):  # why it failed is about to be said by the predictor itself
            print(f"{time.monotonic() - begun:6.1f} s  {what}: {phase}", flush=True)
            shown = phase
        time.sleep(POLL_SECONDS)


def announce(served: list[Served], port: int) -> None:
    url = f"http://{HOST}:{port}/generate"
    names = " and ".join(model.name for model in served)
    print(f"\n{names} {'is' if len(served) == 1 else 'are'} served at {url}; try\n")
    for kind in dict.fromkeys(model.kind for model in served):
        body = json.dumps({"prompt": PROMPTS[kind]}, ensure_ascii=False)
        form = " -H 'Accept: image/png' -o picture.png" if kind == "image" else ""
        print(f"  curl {url} -H 'Content-Type: application/json'{form} -d {shlex.quote(body)}")
    print("\nCtrl-C stops it.", flush=True)


def check(children: Children) -> None:
    for module, child in children.items():
        status = child.poll()
        if status is not None:
            # A child that ends with a status of its own has said why in a line of its own.
            raise Ended(f"{module} was ended by {signal.Signals(-status).name}" if status < 0 else "")


def stop(children: Children) -> None:
    """Stop web before the predictor it may still wait for; kill what does not go."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    for child in reversed(children.values()):
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    sys.exit(main())
