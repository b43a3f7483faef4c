"""Requests that are drawn from the OpenAPI document, good and bad: whatever comes, the answer is a documented one."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("examples", [20, pytest.param(300, marks=pytest.mark.nightly)])
async def test_every_answer_is_documented(
    address: str, run_program: Callable[..., Awaitable[str]], tmp_path: Path, examples: int
) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)]
    command += ["run", f"{address}/openapi.json", "--max-examples", str(examples)]
    print(await run_program(*command, cwd=tmp_path))
