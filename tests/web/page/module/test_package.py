"""What npm installs."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from contract.fields import StrictModel
from contract.models.description import DescribedModel, DescribedModels, FieldDefaults, ModelLimits, SizeLimits
from tests.support.processes import ROOT

FOLDER = ROOT / "web" / "page" / "module"
PACKAGE = json.loads((FOLDER / "package.json").read_text())


def test_it_has_the_version_of_the_project() -> None:
    assert PACKAGE["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_its_files_are_there_and_need_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"package.json", *PACKAGE["files"]}
    assert "dependencies" not in PACKAGE
    assert "import " not in re.sub(r"//.*", "", (FOLDER / "generate.js").read_text())


def test_every_export_has_a_type() -> None:
    exported = r"^export (?:async )?(?:function\*?|class|const) (\w+)"
    code = set(re.findall(exported, (FOLDER / "generate.js").read_text(), re.MULTILINE))
    assert code == set(re.findall(exported, (FOLDER / "generate.d.ts").read_text(), re.MULTILINE))


@pytest.mark.parametrize("described", [DescribedModels, DescribedModel, ModelLimits, SizeLimits, FieldDefaults])
def test_all_that_is_known_of_a_model_has_a_type(described: type[StrictModel]) -> None:
    """Also what the contract gets later."""
    types = (FOLDER / "generate.d.ts").read_text()
    [members] = re.findall(rf"^export interface {described.__name__} {{\n(.*?)^}}", types, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^\t(\w+)\??:", members, re.MULTILINE)
    assert sorted(named) == sorted(described.model_fields)
