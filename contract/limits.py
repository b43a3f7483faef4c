"""Every limit of the contract. A model may have tighter ones, such as its context window, and never looser ones."""

from __future__ import annotations

PROMPT_CHARS = 32_768
"""Longest prompt, in Unicode code points."""

MAX_TOKENS = 4_096
"""Most tokens one request may ask for."""

STOP_SEQUENCES = 4
"""Most stop sequences in one request (OpenAI's number)."""

STOP_CHARS = 256
"""Longest stop sequence, in Unicode code points."""

HEADER_BYTES = 16_384
"""Longest request line and header fields of a request together."""

HEADER_FIELDS = 100
"""Most header fields of a request."""

HEADER_SECONDS = 10.0
"""Longest a client may take to send a request line and the header fields, from their first byte."""

BODY_BYTES = 1_048_576
"""Largest request body. The longest prompt, each character written as a JSON escape pair, still fits."""

BODY_SECONDS = 10.0
"""Longest a client may take to send its body."""

INSTANCES = 16
"""Most prompts in one KServe V1 or V2 request, and in one of OpenAI's completions."""

PICTURES = 8
"""Most pictures in one request."""

PICTURE_SIDE = 2_048
"""Longest side of a picture, in pixels. A model may serve less."""

STEPS = 200
"""Most denoising steps of a picture."""

GUIDANCE = 50.0
"""Highest guidance scale."""

PREVIEWS = 16
"""Most previews of each picture while it is made."""
