"""A copy in another namespace: what its reader changes there is all that there is to change."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manifests.checks import problems
from tests.manifests.checks.kustomizations import FOLDERS, render

OTHER = "elsewhere"
NAMES_A_NAMESPACE = re.compile(r"(?<!/etc)(?<!\bai)(?<!\burn)[./:@]shangcai(?=[./:]|$)|^shangcai$")
"""In an address, in a path, or in the name of an account; not /etc/shangcai, ai.shangcai or urn:shangcai."""

HAVE_THE_WORD = {"app.kubernetes.io/part-of", "matchExpressions", "image"}


@pytest.fixture
def moved(combined: Path, tmp_path: Path) -> Path:
    """All manifests, with each `namespace:` and each Namespace of deploy/ changed, as docs/deploy-reference.md says."""
    for source in FOLDERS:
        shutil.copytree(combined / source, tmp_path / source)
    for file in (tmp_path / "deploy").glob("*/kustomization.yaml"):
        file.write_text(file.read_text().replace("namespace: shangcai\n", f"namespace: {OTHER}\n"))
    for file in (tmp_path / "deploy").glob("*/namespace.yaml"):
        file.write_text(file.read_text().replace("  name: shangcai\n", f"  name: {OTHER}\n"))
    return tmp_path


@pytest.mark.slow
def test_a_copy_in_another_namespace_is_right(moved: Path) -> None:
    folders = [file.parent for file in sorted((moved / "deploy").glob("*/kustomization.yaml"))]
    assert len(folders) > 5
    assert list(problems(moved, folders)) == []
    for folder in folders:
        for thing in render(folder):
            left = [text for text in strings(thing.document) if NAMES_A_NAMESPACE.search(text)]
            assert left == [], f"{folder.name}: {thing.title}"


def strings(value: object) -> Iterator[str]:
    """The texts within a value, besides those that have the word for another reason."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from () if key in HAVE_THE_WORD else strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value
