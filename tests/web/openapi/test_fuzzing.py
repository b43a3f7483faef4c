"""Requests that are drawn from the OpenAPI document, good and bad: whatever comes, the answer is a documented one."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from web.callers.key_file import entry

pytestmark = pytest.mark.slow

KEY = "the key of ann"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


# Each value of each field takes minutes.
@pytest.mark.parametrize(
    ("examples", "phases"),
    [
        (10, "examples,fuzzing,stateful"),
        pytest.param(300, "examples,coverage,fuzzing,stateful", marks=pytest.mark.nightly),
    ],
)
async def test_every_answer_is_documented(
    start: Callable[..., Awaitable[str]],
    run_program: Callable[..., Awaitable[str]],
    tmp_path: Path,
    examples: int,
    phases: str,
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(entry("ann", KEY))
    address = await start(callers="keys", callers_file=keys, callers_secret="s" * 32)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)]
    command += ["run", f"{address}/openapi.json", "--max-examples", str(examples), "--phases", phases]
    command += ["--header", f"Authorization: Bearer {KEY}"]
    print(await run_program(*command, cwd=tmp_path))
