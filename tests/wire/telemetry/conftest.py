"""Spans in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.wire.spans import Spans, recorded


@pytest.fixture
def spans() -> Iterator[Spans]:
    with recorded() as spans:
        yield spans
