"""mosec with dynamic batching; its address, port and timeout are environment variables of its own, MOSEC_…."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from scripts.benchmarks.peers.static_batch import BATCH, WAIT_SECONDS, StaticBatch


class TextWorker(Worker):  # type: ignore[misc]  # mosec is not installed where this is checked
    def __init__(self) -> None:
        self.batch = StaticBatch()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, str]]:
        return self.batch.write(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(TextWorker, max_batch_size=BATCH, max_wait_time=int(1000 * WAIT_SECONDS))
    server.run()
