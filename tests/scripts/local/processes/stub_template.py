"""A template that imports nothing and answers as the file of its first argument says: lines of JSON, one an order.

A line `silence` is no answer; after the last one it ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

from predictor.template.control import receive, send


def main() -> None:
    with socket.socket(fileno=3) as control:
        for line in Path(sys.argv[1]).read_text().splitlines():
            order, descriptors = receive(control)
            for descriptor in descriptors:
                os.close(descriptor)
            with Path(sys.argv[1]).with_suffix(".orders").open("a") as orders:
                orders.write(json.dumps(order) + "\n")
            if line != "silence":
                send(control, json.loads(line))
        if line == "silence":
            signal.pause()


if __name__ == "__main__":
    main()
