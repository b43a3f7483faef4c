"""Whether the servers' memory grows over thousands of requests."""

from __future__ import annotations

from pathlib import Path

import uvloop

from scripts.benchmarks.contenders import over_http, write_together
from scripts.benchmarks.overhead import SHORT, SLOTS
from scripts.benchmarks.request_shapes import GENERATE
from scripts.benchmarks.servers import start_predictor, start_web
from scripts.progress import tracked


def measure(model: Path, dtype: str, requests: int) -> None:
    """Resident memory of both servers after a tenth of the requests and after all of them."""
    with start_predictor(model, dtype, SLOTS) as predictor, start_web(predictor.url) as web:
        write = over_http(web, GENERATE)
        sizes = []
        for share in (requests // 10, requests - requests // 10):
            for begin in tracked(range(0, share, 2 * SLOTS), "texts"):
                uvloop.run(write_together(write, [SHORT] * min(2 * SLOTS, share - begin)))
            sizes.append((predictor.resident_bytes / 2**20, web.resident_bytes / 2**20))
    (predictor_before, web_before), (predictor_after, web_after) = sizes
    print(
        f"memory after {requests // 10} and {requests} requests: predictor {predictor_before:.1f} and "
        f"{predictor_after:.1f} MiB, web {web_before:.1f} and {web_after:.1f} MiB",
        flush=True,
    )
