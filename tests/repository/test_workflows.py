"""What GitHub and pre-commit run is what people run: scripts of this repository, with its own tools."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in read(workflow)["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_it_can_be_read(path: Path) -> None:
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_only_calls_scripts_of_the_repository(workflow: Path) -> None:
    commands = [step["run"].split()[0] for step in steps(workflow) if "run" in step]
    assert commands
    assert [command for command in commands if not os.access(ROOT / command, os.X_OK)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_asks_for_what_scripts_test_knows(workflow: Path) -> None:
    known = (ROOT / "scripts" / "test").read_text()
    asked = {flag for step in steps(workflow) for flag in step.get("run", "").split()[1:]}
    assert [flag for flag in asked if flag not in known] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_names_versions_of_actions(workflow: Path) -> None:
    assert read(workflow)["permissions"] == {"contents": "read"}
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps(workflow) if "uses" in step)


def test_dependabot_looks_where_there_is_something() -> None:
    files = {"pip": "pyproject.toml", "docker": "Dockerfile", "npm": "package-lock.json", "github-actions": ".github"}
    updates = read(ROOT / ".github" / "dependabot.yml")["updates"]
    for update in updates:
        for folder in update.get("directories") or [update["directory"]]:
            assert (ROOT / folder.lstrip("/") / files[update["package-ecosystem"]]).exists()
    locked = {f"/{path.parent.relative_to(ROOT)}" for path in (ROOT / "tests").rglob("package-lock.json")}
    assert locked == {
        folder for update in updates if update["package-ecosystem"] == "npm" for folder in update["directories"]
    }


def test_pre_commit_runs_the_linters_of_the_project() -> None:
    """No repository of hooks, for that would bring a version of its own of ruff or mypy."""
    for repository in read(ROOT / ".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        assert [hook["entry"] for hook in repository["hooks"]] == ["scripts/lint"]
        assert all(os.access(ROOT / hook["entry"], os.X_OK) for hook in repository["hooks"])
