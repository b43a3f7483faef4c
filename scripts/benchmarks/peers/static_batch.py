"""What many write around a model: requests that come together are padded to one batch for transformers' `generate`.

mosec_server.py and litserve_server.py serve it, in environments that have nothing of ours: MODEL and DTYPE are
environment variables.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 16
"""Most requests of a batch."""

WAIT_SECONDS = 0.01
"""Longest wait of the first request for others: mosec's default."""


class StaticBatch:
    def __init__(self) -> None:
        folder = os.environ["MODEL"]
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.tokenizer.pad_token_id = 0
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, os.environ["DTYPE"]))

    def write(self, requests: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Greedy texts for requests with a `prompt` and `max_tokens`."""
        inputs = self.tokenizer(
            [request["prompt"] for request in requests],
            return_tensors="pt",
            padding=True,
            return_token_type_ids=False,
        )
        longest = max(request["max_tokens"] for request in requests)
        with torch.inference_mode():
            ids = self.model.generate(**inputs, max_new_tokens=longest, do_sample=False, pad_token_id=0)
        width = inputs["input_ids"].shape[1]
        written = [row[width : width + request["max_tokens"]] for row, request in zip(ids, requests, strict=True)]
        return [{"text": text} for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]
