"""Show on one screen what is served: models, slots, speeds, jobs. scripts/top calls this."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from rich.console import Console
from rich.live import Live

from scripts.local.top.address import METRICS_PORT, NotFound, complete, find_address
from scripts.local.top.keyboard import keyboard
from scripts.local.top.look import look
from scripts.local.top.readings import History
from scripts.local.top.screen import screen

PLAIN_COLUMNS = 100
"""Of what is not written to a terminal."""

HINT = "q: quit"

EVERY_SECONDS = (0.1, 3600)
"""Shortest and longest time between two looks."""


def main() -> int:
    arguments = parse()
    if arguments.url is None:
        try:
            find_address(None, arguments.metrics_url)
        except NotFound as error:
            print(f"scripts/top: {error}", file=sys.stderr)
            return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the terminal is left as it was, then, too
    try:
        if arguments.once or not sys.stdout.isatty():
            return show_once(arguments)
        show(arguments)
    except KeyboardInterrupt:
        pass
    return 0


def show_once(arguments: argparse.Namespace) -> int:
    """Two looks are needed for a speed; 1 if web or its metrics could not be read, and then one look is enough."""
    history = History()
    readings = history.add(look(arguments.url, arguments.metrics_url))
    if not readings.troubles:
        time.sleep(arguments.every)
        readings = history.add(look(arguments.url, arguments.metrics_url))
    width = None if sys.stdout.isatty() else PLAIN_COLUMNS
    Console(width=width, highlight=False).print(screen(readings))
    return 1 if readings.troubles else 0


def show(arguments: argparse.Namespace) -> None:
    """Until somebody quits. Where web is away, the screen says so, and it is looked for again."""
    history = History()
    console = Console(highlight=False)
    with keyboard() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(history.add(look(arguments.url, arguments.metrics_url)), HINT), refresh=True)
            if keys.pressed("q", arguments.every):
                return


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/top",
        description="Show on one screen what is served: models, slots, speeds, jobs. Asks web alone, for /status and "
        "for its metrics, and wakes no model; a web that has scaled to zero itself is started by being asked. "
        "SHANGCAI_KEY may hold a caller's key.",
    )
    parser.add_argument("--url", help="of web (default: that of the scripts/run on this machine)")
    parser.add_argument(
        "--metrics-url",
        help=f"of web's metrics (default: what scripts/run says, or /metrics on port {METRICS_PORT} of the same host)",
    )
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two looks (default: 2)")
    parser.add_argument(
        "--once",
        action="store_true",
        help="print one screen, and end; with 1 if web or its metrics could not be read. So it is without a terminal",
    )
    arguments = parser.parse_args()
    shortest, longest = EVERY_SECONDS
    if not shortest <= arguments.every <= longest:
        parser.error(f"--every: {arguments.every:g} is not from {shortest} to {longest} seconds")
    for flag in ("url", "metrics_url"):
        try:
            if (given := getattr(arguments, flag)) is not None:
                complete(given)
        except ValueError as error:
            parser.error(f"--{flag.replace('_', '-')}: {error}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
