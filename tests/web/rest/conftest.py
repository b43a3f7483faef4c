"""Model servers that die at a point of their answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.web.dying_server import DyingServer, Say


@pytest.fixture
def dying() -> Callable[..., DyingServer]:
    def make(*answers: Say) -> DyingServer:
        return DyingServer(list(answers))

    return make
