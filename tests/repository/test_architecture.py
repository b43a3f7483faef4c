"""The table of docs/architecture.md and the imports of the code say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"^\| `([a-z/]+)` \| [^|]+ \| ([^|]*)\|$", re.MULTILINE)
SHARED = {
    "contract",
    "wire",
    "predictor.plan_settings",
    "predictor.settings",
    "predictor.limits",
    "predictor.metrics",
    "predictor.system_calls",
    "predictor.systemd",
    "predictor.errors",
    "web.settings",
    "web.setting_values",
    "web.metrics",
}
"""What every folder may import."""

MODULES = 13
LINES = 300


def folders() -> dict[str, set[str]]:
    """What each folder may import beside SHARED, by the table; as packages."""
    rows = TABLE.findall((ROOT / "docs" / "architecture.md").read_text())
    return {
        folder.replace("/", "."): {f"{folder.partition('/')[0]}.{name}" for name in re.findall(r"`(\w+)`", allowed)}
        for folder, allowed in rows
    }


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("contract", "wire", "predictor", "web", "shangcai", cache_dir=None)


def imported(imports: grimp.ImportGraph, folder: str) -> Iterator[tuple[str, str]]:
    """Who imports what, out of a folder."""
    for module in {folder, *imports.find_descendants(folder)}:
        for other in imports.find_modules_directly_imported_by(module):
            if not f"{other}.".startswith(f"{folder}."):
                yield module, other


def test_every_folder_stands_in_the_table() -> None:
    packages = {".".join(file.relative_to(ROOT).parent.parts) for file in ROOT.glob("*/*/__init__.py")}
    wings = {name for name in packages if name.startswith(("predictor.", "web."))}
    assert set(folders()) == {"contract", "wire", "shangcai", *wings}


@pytest.mark.parametrize("folder", folders())
def test_a_folder_imports_what_the_table_allows(imports: grimp.ImportGraph, folder: str) -> None:
    room = folder.partition(".")[0]
    allowed = folders()[folder] | {name for name in SHARED if name.partition(".")[0] in (room, "contract", "wire")}
    if folder in ("contract", "wire", "shangcai"):
        allowed = {"contract"}
    wrong = [
        (module, other)
        for module, other in imported(imports, folder)
        if not any(f"{other}.".startswith(f"{name}.") for name in allowed)
    ]
    assert wrong == []


def test_nothing_in_the_table_is_allowed_in_vain(imports: grimp.ImportGraph) -> None:
    for folder, allowed in folders().items():
        used = {other for _, other in imported(imports, folder)}
        for name in allowed:
            assert any(f"{other}.".startswith(f"{name}.") for other in used), f"{folder} does not import {name}"


@pytest.mark.parametrize("room", ["contract", "wire", "predictor", "web", "shangcai", "scripts", "tests"])
def test_folders_and_modules_are_small(room: str) -> None:
    for folder in {file.parent for file in (ROOT / room).rglob("*.py")}:
        modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(modules) <= MODULES, f"{folder.relative_to(ROOT)} has {len(modules)} modules"
        if room != "tests":
            long = {file.name: count for file in modules if (count := len(file.read_text().splitlines())) > LINES}
            assert long == {}, folder
