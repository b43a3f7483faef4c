"""Throughput and latency, each contender beside raw batched `generate`, or raw calls of a pipeline, from the same run.

Texts all have the same length: the end-of-sequence token is switched off in a copy of the model's generation config.
"""

from __future__ import annotations

import argparse
import sys

from scripts.benchmarks import (
    contention,
    conversation,
    memory_growth,
    overhead,
    picture_throughput,
    slot_release,
    structure,
)
from scripts.benchmarks.cold import cold_start
from scripts.benchmarks.models import endless
from scripts.benchmarks.page import page
from scripts.benchmarks.peers import peers
from scripts.benchmarks.quality import quality
from scripts.benchmarks.telemetry import telemetry
from scripts.benchmarks.text_throughput import TextThroughput
from scripts.benchmarks.wake import wake
from scripts.project import ROOT


def main() -> None:
    commands = {
        "cold": cold_start.main,
        "contention": contention.main,
        "conversation": conversation.main,
        "page": page.main,
        "peers": peers.main,
        "quality": quality.main,
        "structure": structure.main,
        "telemetry": telemetry.main,
        "wake": wake.main,
    }
    if sys.argv[1:] and sys.argv[1] in commands:
        commands[sys.argv[1]](sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--models", default="poet,random-5m,gemma-270m,painter", help="which to measure (all of them)")
    parser.add_argument("--batches", default="1,4,8,16", help="numbers of texts at once")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; medians are printed")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--requests", type=int, default=5000, help="to the random model, while its memory is watched")
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    for name, model in endless(name for name in names if name != "painter"):
        TextThroughput(model, arguments).measure(name)
        if name == "random-5m":  # the only one whose own time is so short that the server's is seen
            overhead.measure_rest(model, arguments.dtype)
            overhead.measure_one_token(model, arguments.dtype)
            overhead.measure_events(model, arguments.dtype)
            slot_release.measure(model, arguments.dtype)
            memory_growth.measure(model, arguments.dtype, arguments.requests)
    if "painter" in names:
        picture_throughput.measure(ROOT / "models" / "painter")


if __name__ == "__main__":
    main()
