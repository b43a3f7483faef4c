"""What is measured of a model before it is served."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from predictor.engine.memory.slot_plan import Cost

STARTS = 8
"""So many starts are remembered."""


class Record(BaseModel):
    """Values that were measured together, as they are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CostRecord(Record):
    """A Cost of predictor.engine.memory.slot_plan, in bytes."""

    weights: int = Field(ge=0)
    once: int = Field(ge=0)
    slot: int = Field(ge=1)

    @classmethod
    def of(cls, cost: Cost) -> CostRecord:
        return cls(weights=cost.weights, once=cost.once, slot=cost.slot)

    @property
    def cost(self) -> Cost:
        return Cost(self.weights, self.once, self.slot)


class TextVerdict(Record):
    """`obstacle` and `prefill_tokens` are those of predictor.text.batch_check.Sharing."""

    obstacle: str | None
    prefill_tokens: int | None = Field(ge=1)


class PictureMeasurements(Record):
    """Measured with so many bytes of `memory`. `limited`: whether no picture is larger than the default size. `knee`
    pictures at once were found worth it, in a search among up to `searched`; `disturbed`: while others wanted the
    cores."""

    limited: bool
    memory: int = Field(ge=1)
    cost: CostRecord
    knee: int = Field(ge=1)
    searched: int = Field(ge=1)
    disturbed: bool

    def worthwhile(self, slots: int) -> int | None:
        """How many of so many slots are worth it; None where that was not searched."""
        return min(self.knee, slots) if slots <= self.searched or self.knee < self.searched else None


class PictureVerdict(Record):
    """`obstacle`: why pictures must not be computed together; None where they may."""

    obstacle: str | None


class StartRecord(Record):
    """Seconds from the start of the process to ready, of the latest STARTS, the newest last."""

    seconds: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(min_length=1, max_length=STARTS)
