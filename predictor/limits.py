"""Defaults of the predictor's limits."""

from __future__ import annotations

MAX_CONCURRENCY = 16
"""Most slots on a CPU, even if memory would hold more: with more a step there only takes longer."""

SMALL_MODEL_BYTES = 134_217_728
MAX_SMALL_CONCURRENCY = 64
"""The same for texts by a model whose weights take less than SMALL_MODEL_BYTES: there a step costs more than its rows.
64 rows of the poet have twice the tokens a second of 16."""

MAX_CUDA_CONCURRENCY = 256
"""Most slots on a GPU, where otherwise memory decides (as vLLM's max_num_seqs)."""

MAX_WAITING = 64
"""Most accepted requests that wait for a slot; one more is refused."""

MAX_LENGTH = 8_192
"""Most tokens of one text, prompt included, where nobody says how many; the model may allow fewer."""

REPLIES = 16_384
"""Most replies to events that are kept for redeliveries."""

REPLY_BYTES = 67_108_864
"""Most bytes of them."""

REPLY_SECONDS = 600.0
"""How long a reply or a cancellation is kept."""
