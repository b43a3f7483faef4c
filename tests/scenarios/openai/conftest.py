"""One deployment for the clients of other people, and how their programs are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.openai.deployment import Deployment
from tests.support.openai.javascript_client import SCRIPTS, program_folder
from tests.support.texts.tool_model import save_tool_model


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The poet, the painter, and `caller`, whose chat template takes tools; see `asleep`."""
    caller = save_tool_model(tmp_path_factory.mktemp("models") / "caller")
    with closing(Deployment({"caller": caller})) as deployment:
        deployment.begin()
        yield deployment


@pytest.fixture
def asleep(deployment: Deployment) -> Deployment:
    """The deployment at zero: no model runs."""
    deployment.sleep()
    return deployment


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, npm_installed: Callable[[Path], Path]) -> Path:
    """Where our programs in JavaScript find the packages that they use."""
    return program_folder(tmp_path_factory.mktemp("programs"), npm_installed(SCRIPTS) / "node_modules")
