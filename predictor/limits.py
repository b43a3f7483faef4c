"""What bounds the predictor, where its settings say nothing else."""

from __future__ import annotations

MAX_CONCURRENCY = 16
"""Most slots, whatever memory would hold: past this a step on a CPU only gets longer."""

MAX_WAITING = 64
"""Most accepted requests that wait for a slot; one more is refused."""

MAX_LENGTH = 8_192
"""Most tokens of one text, prompt included, that a slot has room for; less where the model's context is shorter."""

REPLIES = 16_384
"""Most replies to events that are remembered."""

REPLY_BYTES = 67_108_864
"""Most bytes of replies that are remembered."""

REPLY_SECONDS = 600.0
"""How long a reply is remembered, and that a request was cancelled."""
