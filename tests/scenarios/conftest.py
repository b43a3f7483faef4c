"""scripts/run, for one test or for all of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.run import Run, Start


@pytest.fixture
def start() -> Iterator[Start]:
    """Start any number of `scripts/run`; all are ended with the test."""
    runs: list[Run] = []

    def begin(*flags: str, port: int | None = None) -> Run:
        runs.append(Run(*flags, port=port))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Run]:
    """The poet and the painter, served to all tests of a module."""
    with closing(Run()) as run:
        run.wait_until_ready()
        yield run
