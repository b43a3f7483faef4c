"""What each container installs, and that what they share needs little of it; and the linters."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.processes import ROOT

MAY_IMPORT = {
    "contract": {"pydantic", "pydantic_core"},
    "shangcai": {"contract", "httpx2", "pydantic", "pydantic_core"},
    "wire": {
        "anyio",
        "contract",
        "fsspec",
        "h11",
        "httpx2",
        "opentelemetry",
        "pydantic",
        "pydantic_settings",
        "python_multipart",
        "pythonjsonlogger",
        "redis",
        "starlette",
        "uvicorn",
    },
}
HEAVY = {"torch", "kserve", "transformers", "diffusers", "llguidance", "fastapi", "grpcio", "pandas", "numpy"}


def imported(package: str) -> Iterator[tuple[str, str]]:
    """The file and the top-level package of each absolute import."""
    for path in sorted((ROOT / package).rglob("*.py")):
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


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_what_is_shared_or_given_away_imports_only_what_is_light(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package} | set(sys.stdlib_module_names)
    assert [(file, name) for file, name in imported(package) if name not in allowed] == []


def test_installing_for_web_brings_nothing_heavy() -> None:
    found = distributions("shangcai", "web")
    assert {"httpx2", "starlette", "pydantic"} <= found
    assert found & HEAVY == set()


def test_installing_for_the_predictor_brings_what_it_needs() -> None:
    assert {"torch", "kserve", "transformers"} <= distributions("shangcai", "predictor")


@pytest.mark.slow
def test_import_kserve_finds_the_library_and_not_our_folder() -> None:
    code = "import kserve; print(kserve.__file__)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip().endswith("site-packages/kserve/__init__.py")


@pytest.mark.parametrize("folder", ["kserve", "knative"])
def test_folders_of_manifests_hold_no_python(folder: str) -> None:
    assert list((ROOT / folder).rglob("*.py")) == []


def test_the_linters_find_nothing() -> None:
    """Style, types and which folder imports which."""
    result = subprocess.run([ROOT / "scripts" / "lint"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
