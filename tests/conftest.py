"""What tests of several folders need."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.packages import installed

# No test finds what another one, or the person who runs them, has measured.
os.environ["PREDICTOR_CACHE_FOLDER"] = ""


@pytest.fixture(scope="session")
def npm_installed() -> Callable[[Path], Path]:
    """See tests.support.packages.installed."""
    return installed.npm_installed


@pytest.fixture(scope="session")
def pip_installed() -> Callable[[Path], Path]:
    """See tests.support.packages.installed."""
    return installed.pip_installed
