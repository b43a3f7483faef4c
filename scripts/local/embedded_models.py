"""The models of the repository, and which prompts they answer where a request names no model."""

from __future__ import annotations

VERSE = (
    r"\p{Han}|"
    r"\b(poems?|poetry|poets?|verses?|haikus?|sonnets?|limericks?|quatrains?|couplets?|rhymes?|ballads?|odes?)\b"
)
"""Whatever is asked in Chinese, and in other languages what has one of these words: see `match` of MODELS."""

EMBEDDED: tuple[tuple[str, str | None], ...] = (("poet", VERSE), ("painter", None))
"""The folders below `models/`, which are the served names, too, each with its `match`."""
