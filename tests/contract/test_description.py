"""What a model's description refuses, and which of two prevails."""

from __future__ import annotations

from typing import Any

import pytest

from contract import GenerationRequest, ProblemError
from contract.models.description import NOT_DESCRIBED, FieldDefaults, ModelDescription, ModelLimits, SizeLimits

SMALL = ModelDescription(
    refuses=["guidance", "mask"], limits=ModelLimits(steps=8, size=SizeLimits(multiple=8, side=128, pixels=8192))
)
TWO = ModelDescription(limits=ModelLimits(size=SizeLimits(pixels=1_500_000, only=["1024x1024", "768x1360"])))


@pytest.mark.parametrize(
    ("description", "fields", "problem"),
    [
        (SMALL, {"guidance": 2.0}, "guidance: cat does not take this"),
        (
            SMALL,
            {"size": "60x64"},
            "size: width and height must be multiples of 8, at most 128, with at most 8192 pixels together",
        ),
        (SMALL, {"size": "136x8"}, "size: width and height must be multiples of 8, at most 128, with at most 8192"),
        (SMALL, {"size": "128x128"}, "size: width and height must be multiples of 8, at most 128, with at most 8192"),
        (SMALL, {"steps": 9}, "steps: must be at most 8: cat takes no more"),
        (TWO, {"size": "512x512"}, "size: must be one of 1024x1024, 768x1360"),
    ],
)
def test_what_the_model_would_refuse_is_refused(
    description: ModelDescription, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ProblemError) as refused:
        description.check(GenerationRequest(prompt="a", **fields), "cat")
    assert str(refused.value).partition("Invalid field: ")[2].startswith(problem) or problem in str(refused.value)
    assert [error.field for error in refused.value.problem.errors or []] == [problem.partition(":")[0]]


@pytest.mark.parametrize(
    ("description", "fields"),
    [
        (SMALL, {"size": "64x128", "steps": 8, "negative_prompt": "dogs"}),
        (TWO, {"size": "768x1360", "steps": 200}),
        (TWO, {"size": "0768x1360"}),
        (NOT_DESCRIBED, {"size": "2048x2048", "steps": 200, "guidance": 50.0}),
        (SMALL, {"image": "iVBORw0KGgo=", "size": "512x512"}),  # the picture has a size of its own
    ],
)
def test_nothing_else_is(description: ModelDescription, fields: dict[str, Any]) -> None:
    description.check(GenerationRequest(prompt="a", **fields), "cat")


def test_what_is_stated_prevails_member_by_member() -> None:
    told = ModelDescription(
        languages=["en"], limits=ModelLimits(steps=200, context_tokens=9), defaults=FieldDefaults(steps=50)
    )
    stated = ModelDescription(summary={"en": "Cats."}, limits=ModelLimits(steps=8))
    assert stated.over(told) == ModelDescription(
        summary={"en": "Cats."},
        languages=["en"],
        limits=ModelLimits(steps=8, context_tokens=9),
        defaults=FieldDefaults(steps=50),
    )
    assert NOT_DESCRIBED.over(told) == told.over(NOT_DESCRIBED) == told
