"""Probes of plain completions."""

from __future__ import annotations

from tests.support.openai.answers import choices, chunks, ends_by, has_text, has_texts, has_usage
from tests.support.openai.probe import MethodProbes, Probe

BASE = {"model": "poet", "prompt": "春雨", "max_tokens": 4, "seed": 1}

METHODS = (
    MethodProbes(
        "completions.create",
        BASE,
        (
            Probe("best_of", 1, has_text),
            Probe("best_of", 2),
            Probe("echo", False, has_text),
            Probe("echo", True),
            Probe("frequency_penalty", 1.5, has_text),
            Probe("logit_bias", {"300": -100}, has_text),
            Probe("logprobs", 2, lambda answer: len(next(choices(answer))["logprobs"]["token_logprobs"]) > 0),
            Probe("max_tokens", 2, ends_by("length")),
            Probe("model", "poet", has_text),
            Probe("n", 2, has_texts(2)),
            Probe("presence_penalty", 1.5, has_text),
            Probe("prompt", "春雨", has_text),
            Probe("prompt", ["春雨", "秋月"], has_texts(2)),
            Probe("prompt", [1, 2, 3]),
            Probe("seed", 7, has_text),
            Probe("stop", "。", has_text),
            Probe("stream", True, lambda answer: len(chunks(answer)) > 2 and has_text(answer)),
            Probe("stream", False, has_text),
            Probe("stream_options", {"include_usage": True}, has_usage, {"stream": True}),
            Probe("suffix", "。"),
            Probe("temperature", 0, has_text),
            Probe("top_p", 0.5, has_text),
            Probe("user", "somebody", has_text),
        ),
    ),
)
