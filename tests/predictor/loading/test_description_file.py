"""What a model's folder says of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from contract.models.description import DESCRIPTION_BYTES, NOT_DESCRIBED, ModelDescription
from predictor.loading.description_file import read_description


@pytest.mark.parametrize("inside", ["", "poet.gguf"])
def test_it_lies_beside_the_weights(tmp_path: Path, inside: str) -> None:
    (tmp_path / "poet.gguf").touch()
    (tmp_path / "description.json").write_text('{"languages": ["zh"]}')
    assert read_description(tmp_path / inside) == ModelDescription(languages=["zh"])


@pytest.mark.parametrize("source", ["a/hub-id", "nowhere"])
def test_there_may_be_none(source: str) -> None:
    assert read_description(source) == NOT_DESCRIBED


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "it: Invalid JSON"),
        ('{"languages": "zh"}', "languages: Input should be a valid array"),
        ('{"limits": {"steps": 0}}', "limits.steps: Input should be greater than or equal to 1"),
        (" " * (DESCRIPTION_BYTES + 1), f"it has more than {DESCRIPTION_BYTES} bytes"),
    ],
)
def test_one_that_is_wrong_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, document: str, why: str
) -> None:
    (tmp_path / "description.json").write_text(document)
    with caplog.at_level(logging.WARNING):
        assert read_description(tmp_path) == NOT_DESCRIBED
    assert f"description.json is left out: {why}" in caplog.text
