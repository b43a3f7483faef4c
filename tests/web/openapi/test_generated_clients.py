"""Clients that are generated from the OpenAPI document compile, and are answered what they expect."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from contract import RequestLimits
from tests.support.packages.installed import NODE
from web.openapi.document import describe

RunProgram = Callable[..., Awaitable[str]]
Start = Callable[..., Awaitable[str]]

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TYPESCRIPT = HERE / "typescript"

ANSWERED = {
    "text": "春天",
    "picture": "image/png",
    "refused": "400 urn:shangcai:problem:invalid-field: max_tokens: input should be greater than or equal to 1",
    "job": "春天",
}


@pytest.fixture
def document(tmp_path: Path) -> Path:
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(describe("1.2.3", {"poet": "text", "painter": "image"}, RequestLimits())))
    return file


async def test_a_typescript_client(
    start: Start, run_program: RunProgram, document: Path, npm_installed: Callable[[Path], Path], tmp_path: Path
) -> None:
    modules = npm_installed(TYPESCRIPT) / "node_modules"
    node = str(NODE)
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(TYPESCRIPT / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)

    generator = modules / "openapi-typescript" / "bin" / "cli.js"
    await run_program(node, str(generator), str(document), "--output", "schema.d.ts", cwd=tmp_path)
    await run_program(node, str(modules / "typescript" / "bin" / "tsc"), "--project", ".", cwd=tmp_path)
    answered = json.loads(await run_program(node, "client.ts", await start(), cwd=tmp_path))

    stream = ["queued", "running", "春", "天", "春天"]
    assert answered == ANSWERED | {"stream": stream}


async def test_a_python_client(start: Start, run_program: RunProgram, document: Path, tmp_path: Path) -> None:
    python = sys.executable
    module = [python, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")  # which would format it
    await run_program(
        *module, "--config", "config.yaml", "--path", str(document), "--output-path", "shangcai_client", cwd=tmp_path
    )
    shutil.copy(HERE / "python_client.py", tmp_path)
    await run_program(python, "-m", "mypy", "--strict", "--explicit-package-bases", "python_client.py", cwd=tmp_path)

    assert json.loads(await run_program(python, "python_client.py", await start(), cwd=tmp_path)) == ANSWERED
