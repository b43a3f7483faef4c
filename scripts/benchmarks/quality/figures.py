"""The figures of one model in one form, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SLOTS = 16


class Figures(NamedTuple):
    """Per token; tokens/s of the engine; bytes resident after writing SLOTS texts at once."""

    perplexity: float
    alone: float
    together: float
    memory: int


def render(found: Mapping[str, Figures]) -> str:
    """A Markdown table of the variants; perplexity is compared with the first's."""
    lines = [
        f"| weights | perplexity | tokens/s alone | {SLOTS} at once | memory, MiB |",
        "|---|---|---|---|---|",
    ]
    first = next(iter(found.values()), None)
    for name, one in found.items():
        assert first is not None
        more = 100 * (one.perplexity / first.perplexity - 1)
        lines.append(
            f"| {name} | {one.perplexity:.3f} ({more:+.2f} %) | {one.alone:,.0f} | {one.together:,.0f} | "
            f"{one.memory / 2**20:,.0f} |"
        )
    return "\n".join(lines)
