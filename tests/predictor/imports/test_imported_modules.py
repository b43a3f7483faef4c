"""What one process has imported another one imports before it is asked for."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictor.imports.imported_modules import ModuleFiles, import_modules, read_modules, write_modules


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules: two that can be imported, and two that cannot."""
    (tmp_path / "noodle.py").write_text("long = True\n")
    (tmp_path / "dough.py").write_text("import noodle\n")
    (tmp_path / "burnt.py").write_text("raise RuntimeError('burnt')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("noodle", "dough", "burnt"):
        sys.modules.pop(name, None)


def test_modules_are_named_in_the_order_of_their_imports(modules: Path) -> None:
    import_modules(["dough"])
    file = modules / "modules.json"
    write_modules(file)
    names = read_modules(file)
    assert names.index("sys") < names.index("noodle") < names.index("dough")
    assert not [other for other in modules.iterdir() if other.name.startswith("modules.") and other != file]


def test_what_cannot_be_imported_by_itself_is_left(modules: Path) -> None:
    import_modules(["__main__", "burnt", "no.such", "dough"])
    assert sys.modules["noodle"].long
    assert "burnt" not in sys.modules


@pytest.mark.parametrize("content", [None, "", "{", json.dumps([1, "a", None])])
def test_a_file_that_cannot_be_read_names_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "names").write_text(content)
    assert read_modules(tmp_path / "names") == (["a"] if content and "[" in content else [])


def test_names_that_cannot_be_written_are_no_error(tmp_path: Path) -> None:
    write_modules(tmp_path / "none" / "names")


def test_a_file_that_has_changed_is_found(modules: Path) -> None:
    os.utime(modules / "noodle.py", ns=(1, 1))
    os.utime(modules / "dough.py", ns=(1, 1))
    files = ModuleFiles(time.time_ns())
    files.import_modules(["noodle"])
    assert files.changed() is None
    os.utime(modules / "noodle.py", ns=(2, 2))
    assert files.changed() == str(modules / "noodle.py")
    files.import_modules(["dough"])
    assert files.changed() == str(modules / "noodle.py"), "it is still the old one that was imported"
    os.utime(modules / "noodle.py", ns=(1, 1))
    assert files.changed() is None
    (modules / "dough.py").unlink()
    assert files.changed() == str(modules / "dough.py")


def test_a_file_that_was_written_while_it_was_imported_counts_as_changed(modules: Path) -> None:
    os.utime(modules / "noodle.py", (time.time() + 1, time.time() + 1))
    files = ModuleFiles(time.time_ns())
    files.import_modules(["noodle"])
    assert files.changed() == str(modules / "noodle.py")


def test_a_file_that_was_written_after_the_process_began_counts_as_changed(modules: Path) -> None:
    now = time.time()
    os.utime(modules / "noodle.py", (now + 100, now + 100))  # no other file is of a time to come
    import_modules(["noodle"])
    for since, changed in ((now + 50, str(modules / "noodle.py")), (now + 150, None)):
        files = ModuleFiles(int(since * 1e9))
        files.import_modules([])
        assert files.changed() == changed
