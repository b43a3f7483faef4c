"""What OpenAI's documents of pictures have in common."""

from __future__ import annotations

import time
from typing import Any

from contract.fields import PictureFormat

NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""OpenAI's clients ask for it; a diffusion model counts no tokens."""


def picture_head(size: str, form: PictureFormat) -> dict[str, Any]:
    """The members that OpenAI has beside a picture of this `size`, such as 512x512."""
    now = int(time.time())
    head = {"created": now, "created_at": now, "size": size, "quality": "auto", "background": "opaque"}
    return head | {"output_format": form}
