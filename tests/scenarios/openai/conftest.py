"""One deployment for the clients of other people, and how their programs are run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.openai.deployment import Deployment


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """Served to all tests here; see `asleep`."""
    with closing(Deployment({})) as deployment:
        deployment.begin()
        yield deployment


@pytest.fixture
def asleep(deployment: Deployment) -> Deployment:
    """The deployment at zero: no model runs, as at the start of each test here."""
    deployment.sleep()
    return deployment
