"""LitServe with dynamic batching, at HOST and PORT."""

from __future__ import annotations

import os
from typing import Any

import litserve

from scripts.benchmarks.peers.static_batch import BATCH, WAIT_SECONDS, StaticBatch


class TextAPI(litserve.LitAPI):  # type: ignore[misc]  # litserve is not installed where this is checked
    def setup(self, device: str) -> None:
        self.static_batch = StaticBatch()

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return inputs

    def predict(self, x: list[dict[str, Any]]) -> list[dict[str, str]]:
        return self.static_batch.write(x)

    def unbatch(self, output: list[dict[str, str]]) -> list[dict[str, str]]:
        return output


if __name__ == "__main__":
    api = TextAPI(max_batch_size=BATCH, batch_timeout=WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(host=os.environ["HOST"], port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
