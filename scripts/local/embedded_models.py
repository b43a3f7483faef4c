"""The models of the repository, and which prompts they answer where a request names no model."""

from __future__ import annotations

from dataclasses import dataclass

VERSE = (
    r"\p{Han}|"
    r"\b(poems?|poetry|poets?|verses?|haikus?|sonnets?|limericks?|quatrains?|couplets?|rhymes?|ballads?|odes?)\b"
)
"""Whatever is asked in Chinese, and in other languages what has one of these words: see `match` of MODELS."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A folder below `models/`, whose name is the served one, too."""

    name: str
    prompt: str
    """To try it with."""
    match: str | None = None
    """Of its entry in web's MODELS."""
    begins_asleep: bool = False

    @property
    def choice(self) -> dict[str, str]:
        """What its entry of MODELS says beside its address and its kind."""
        return {} if self.match is None else {"match": self.match}


EMBEDDED = (
    EmbeddedModel("poet", "写一首关于春雨的诗", match=VERSE),
    EmbeddedModel("painter", "画一只猫"),
    EmbeddedModel("writer", "Write a short article about containers", begins_asleep=True),
)
