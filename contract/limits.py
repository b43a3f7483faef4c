"""Every limit of the contract. A model may have tighter ones, such as its context window.

Most are the same everywhere. How long a prompt may be and how many tokens may be asked for depends on the models, so a
deployment of web sets them (RequestLimits); the predictor takes what its model's context holds.
"""

from __future__ import annotations

from dataclasses import dataclass

PROMPT_CHARS = 32_768
"""Longest prompt, in Unicode code points, where nothing else is set; and the longest of any picture."""

MAX_TOKENS = 4_096
"""Most tokens one request may ask for, where nothing else is set."""

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
"""Largest request body, where nothing else is set and RequestLimits do not need more."""

BODY_CHUNKS, BODY_CHUNK_BYTES = 2_048, 1_024
"""Most chunks, or packets, that a request body may come in which have fewer bytes than the second number."""

BODY_SECONDS = 10.0
"""Longest a client may take to send its body."""

SEND_SECONDS = 30.0
"""Longest that a client may refuse to take what is sent to it."""

SEND_BYTES_PER_SECOND = 16_384
"""Slowest that a client may take a large answer, after SEND_SECONDS."""

MESSAGES = 1_024
"""Most turns in one conversation."""

TOOLS = 128
"""Most tools of one request, and most calls in one turn (OpenAI's number)."""

TOOL_BYTES = 65_536
"""Most bytes of the tools of one request, as JSON."""

TEMPLATE_BYTES = 16_384
"""Most bytes of the variables of a chat template, as JSON."""

TOP_K = 2**31 - 1
"""Most tokens to sample from: more than any vocabulary has."""

LOGIT_BIASES = 1_024
"""Most tokens whose logits one request may change."""

TOP_LOGPROBS = 20
"""Most likely tokens that are told in the place of each (OpenAI's number)."""

SCHEMA_BYTES = 65_536
"""Most bytes of a JSON Schema that a text is held to, as JSON."""

REGEX_CHARS = 4_096
"""Longest regular expression that a text is held to."""

CHOICES, CHOICE_CHARS = 256, 1_024
"""Most texts to choose from, and how long each may be."""

INSTANCES = 16
"""Most prompts in one KServe V1 or V2 request."""

PROMPTS = 20
"""Most prompts in one request for OpenAI's completions: as many as LangChain sends at once."""

PICTURES = 8
"""Most pictures in one request."""

PICTURE_SIDE = 2_048
"""Longest side of a picture, in pixels. A model may serve less."""

IMAGE_BYTES = 4_194_304
"""Largest file of a picture that is sent in."""

IMAGE_SIDE = 8_192
"""Longest side of a picture that is sent in, in pixels."""

IMAGE_PIXELS = 16_777_216
"""Most pixels of a picture that is sent in: a phone's photo has 12 million."""

IMAGE_CHARS = -(-IMAGE_BYTES // 3) * 4 + 64
"""Longest text of such a file: its base64, after the head of a data: URL."""

LARGE_BODIES_BYTES = 33_554_432
"""Most bytes, at a time, of all request bodies that are larger than BODY_BYTES each."""

BODY_BYTES_PER_SECOND = 262_144
"""Slowest that a client may send what its body has beyond BODY_BYTES, after BODY_SECONDS."""

STEPS = 200
"""Most denoising steps of a picture."""

GUIDANCE = 50.0
"""Highest guidance scale."""

PREVIEWS = 16
"""Most previews of each picture while it is made."""

WEBHOOK_CHARS = 2_048
"""Longest address of a webhook."""

WEBHOOK_ATTEMPTS = 32
"""Most attempts to deliver to a webhook that a deployment may set; a job lists all of them."""

_ESCAPE_PAIR_BYTES = 12
_OTHER_FIELDS_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a deployment allows of a GenerationRequest that is validated with this as its context. Without a context the
    two are not bounded: what was accepted once, or is for a model to judge, is not refused again."""

    prompt_chars: int = PROMPT_CHARS
    max_tokens: int = MAX_TOKENS

    @property
    def body_bytes(self) -> int:
        """The longest prompt and negative prompt still fit, each character written as a JSON escape pair; and no less
        than by default, for replies to events come in bodies, too."""
        return max(BODY_BYTES, 2 * _ESCAPE_PAIR_BYTES * self.prompt_chars + _OTHER_FIELDS_BYTES)

    @property
    def picture_body_bytes(self) -> int:
        """The same where a picture and its mask may be sent in, too."""
        return self.body_bytes + 2 * IMAGE_CHARS
