"""What GitHub and pre-commit run is what people run: scripts of this repository, with its own tools."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.release.images import FLAVOURS

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in read(workflow)["jobs"].values():
        yield from job.get("steps", [])


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
def test_a_workflow_pins_its_actions_to_commits_and_names_their_versions(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)", workflow.read_text())
    pinned = r"[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\b.*"
    assert [action for action in used if not re.fullmatch(pinned, action) and not action.startswith("./")] == []


def test_a_workflow_may_only_read_but_for_the_jobs_that_publish() -> None:
    granted = {path.stem: read(path)["permissions"] for path in WORKFLOWS}
    assert granted == {"nightly": {"contents": "read"}, "release": {}, "test": {"contents": "read"}}
    jobs = {path.stem: read(path)["jobs"] for path in WORKFLOWS}
    publishing = jobs.pop("release")
    assert not [job for found in jobs.values() for job in found.values() if "permissions" in job]
    assert {name: job["permissions"] for name, job in publishing.items()} == {
        "test": {"contents": "read"},
        "images": {"contents": "read", "packages": "write"},
        "release": {"contents": "write", "packages": "write"},
    }


def test_zizmor_finds_nothing_unsafe_in_the_workflows() -> None:
    zizmor = Path(sysconfig.get_path("scripts")) / "zizmor"
    command: list[str | Path] = [
        zizmor,
        "--offline",
        "--no-progress",
        "--min-severity",
        "medium",
        "--strict-collection",
        ".github",
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("schema", "files"), [("github-workflows", WORKFLOWS), ("dependabot", [ROOT / ".github" / "dependabot.yml"])]
)
def test_what_github_reads_fits_its_schema(schema: str, files: list[Path]) -> None:
    tool = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    command: list[str | Path] = [tool, "--builtin-schema", f"vendor.{schema}", *files]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_release_has_the_images_that_its_manifests_need() -> None:
    """One job for each, with its own file of digests; the end of a tag tells the predictor's two apart."""
    matrix = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["images"]["strategy"]["matrix"]["include"]
    built = {job["arguments"].split()[0] + job["suffix"]: job for job in matrix}
    assert set(built) == set(FLAVOURS)
    assert len({job["name"] for job in matrix}) == len(matrix)
    assert "--torch cpu" in built["predictor-cpu"]["arguments"]
    assert "--torch" not in built["predictor"]["arguments"]


def test_dependabot_looks_where_there_is_something() -> None:
    files = {"pip": "*s.txt", "docker": "Dockerfile", "npm": "package-lock.json", "github-actions": ".github"}
    updates = read(ROOT / ".github" / "dependabot.yml")["updates"]
    for update in updates:
        for folder in update.get("directories") or [update["directory"]]:
            assert list((ROOT / folder.lstrip("/")).glob(files[update["package-ecosystem"]]))
    for system, file in (("npm", "package-lock.json"), ("pip", "requirements.txt")):
        locked = {f"/{path.parent.relative_to(ROOT)}" for path in (ROOT / "tests").rglob(file)}
        [folders] = [update["directories"] for update in updates if update["package-ecosystem"] == system]
        assert locked == {folder for folder in folders if folder != "/"}


def test_pre_commit_runs_the_linters_of_the_project() -> None:
    """No repository of hooks, for that would bring a version of its own of ruff or mypy."""
    for repository in read(ROOT / ".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        assert [hook["entry"] for hook in repository["hooks"]] == ["scripts/lint"]
        assert all(os.access(ROOT / hook["entry"], os.X_OK) for hook in repository["hooks"])
