"""The rooms of the house: who may import whom, and what each container installs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = {"contract", "wire", "predictor", "web"}
MAY_IMPORT = {
    "contract": {"pydantic"},
    "wire": {"anyio", "contract", "fsspec", "pydantic", "pydantic_settings", "starlette"},
    "predictor": OURS - {"web"},
    "web": OURS - {"predictor"},
}
HEAVY = {"torch", "kserve", "transformers", "diffusers", "fastapi", "grpcio", "pandas", "numpy"}


def imported(room: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import():
                    names = [alias.name for alias in node.names]
                case ast.ImportFrom(module=str(module), level=0):
                    names = [module]
                case _:
                    continue
            for name in names:
                yield path.name, name.partition(".")[0]


def distributions(name: str, extra: str) -> set[str]:
    """Everything that installing `name[extra]` brings, from the metadata of what is installed."""
    found: set[str] = set()
    todo = [(name, frozenset({extra}))]
    seen = set(todo)
    while todo:
        current, extras = todo.pop()
        found.add(current)
        try:
            requirements = requires(current) or []
        except PackageNotFoundError:  # a requirement of another platform
            continue
        for requirement in map(Requirement, requirements):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": one}) for one in extras | {""}):
                continue
            entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if entry not in seen:
                seen.add(entry)
                todo.append(entry)
    return found


@pytest.mark.parametrize("room", ["contract", "wire"])
def test_the_shared_rooms_import_only_what_is_light(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room} | set(sys.stdlib_module_names)
    assert [(file, name) for file, name in imported(room) if name not in allowed] == []


@pytest.mark.parametrize("room", ["predictor", "web"])
def test_web_and_predictor_never_import_each_other(room: str) -> None:
    assert [(file, name) for file, name in imported(room) if name in OURS - MAY_IMPORT[room]] == []


def test_installing_for_web_brings_nothing_heavy() -> None:
    found = distributions("shangcai", "web")
    assert {"httpx", "starlette", "pydantic"} <= found
    assert found & HEAVY == set()


def test_installing_for_the_predictor_brings_what_it_needs() -> None:
    assert {"torch", "kserve", "transformers"} <= distributions("shangcai", "predictor")


def test_import_kserve_finds_the_library_and_not_our_folder() -> None:
    code = "import kserve; print(kserve.__file__)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip().endswith("site-packages/kserve/__init__.py")


@pytest.mark.parametrize("room", ["kserve", "knative"])
def test_the_manifest_rooms_hold_no_python(room: str) -> None:
    assert list((ROOT / room).rglob("*.py")) == []


@pytest.mark.slow
def test_everything_is_linted_and_typed() -> None:
    result = subprocess.run([ROOT / "scripts" / "lint"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
