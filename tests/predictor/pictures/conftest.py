"""Tokenizers of the tiny pipelines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import pipelines


@pytest.fixture(scope="session")
def words() -> Any:
    return pipelines.word_tokenizer()


@pytest.fixture(scope="session")
def pieces() -> Any:
    return pipelines.t5_tokenizer()
