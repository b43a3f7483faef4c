"""The guides to clusters: their commands name what there is, and what they show is what there would be."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.cluster.components import COMPONENTS, EVENTS
from tests.manifests.checks import problems
from tests.manifests.checks.images import SECRETS
from tests.manifests.checks.kustomizations import FILE, FOLDERS, all_of, name, render
from tests.manifests.checks.objects import Object
from tests.manifests.checks.typed import check as check_type

GUIDES = ("deploy-laptop", "deploy-gpu", "operating", "deploy-reference", "callers")
COPY = "deploy/mine"
"""The reader's own folder, which deploy-gpu tells how to make."""


@pytest.fixture(scope="module")
def guides(root: Path) -> str:
    return "\n".join(guide(root, page) for page in GUIDES)


@pytest.fixture(scope="module")
def mine(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in which the commands of deploy-gpu that change files were run."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in FOLDERS:
        shutil.copytree(root / folder, tree / folder)
    commands = [command for command, _ in transcript(root, "deploy-gpu") if re.match("cp|sed", command)]
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command, shell=True, cwd=tree, check=True)
    return tree


def guide(root: Path, page: str) -> str:
    return (root / "docs" / f"{page}.md").read_text()


def transcript(root: Path, page: str) -> list[tuple[str, list[str]]]:
    """The commands of a page, each with what it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", guide(root, page), re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
    return found


def printed(thing: Object) -> str:
    """As kubectl prints a name."""
    kind, _, group = thing.kind.partition(".")
    return f"{kind.lower()}{group and '.'}{group}/{thing.name}"


def documents(text: str) -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_examples_are_valid(root: Path, guides: str) -> None:
    examples = [Object(document) for document in documents(guides) if "kind" in document]
    assert sorted(thing.document["kind"] for thing in examples) == ["ConfigMap", "InferenceService"]
    assert list(chain(*map(check_type, examples))) == []
    runtime = next(iter(render(root / "kserve" / "runtime")))
    formats = {form["name"] for form in runtime.spec["supportedModelFormats"]}
    [model] = [thing for thing in examples if thing.document["kind"] == "InferenceService"]
    assert model.spec["predictor"]["model"]["modelFormat"]["name"] in formats


def test_what_is_applied_can_be_rendered(root: Path, mine: Path) -> None:
    pages = [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(mine / "deploy").rglob(FILE)]
    applied = {
        folder.rstrip(".")
        for page in pages
        for folder in re.findall(r"(?:-k|--overlay)\s+((?:kserve|knative|deploy)/[\w./-]+)", page.read_text())
    }
    assert {"deploy/laptop", "knative/cluster", COPY} <= applied
    assert applied <= {name(mine, folder) for folder in all_of(mine)}
    assert all(render(mine / folder) for folder in applied)


def test_the_copy_is_right_and_the_readers_own(root: Path, mine: Path) -> None:
    [(command, output)] = [entry for entry in transcript(root, "deploy-gpu") if entry[0].startswith("grep")]
    assert subprocess.check_output(command, shell=True, cwd=mine, text=True).splitlines() == output
    assert list(problems(mine, [mine / COPY])) == []
    images = {container["image"] for thing in render(mine / COPY) for container in thing.containers}
    assert not [image for image in images if "example.com" in image]


def test_a_private_registry_is_named_where_pods_start(root: Path, mine: Path) -> None:
    [patch] = [document for document in documents(guide(root, "deploy-gpu")) if "patches" in document]
    folder = mine / "deploy" / "private"
    shutil.copytree(mine / COPY, folder)
    kustomization = yaml.safe_load((folder / FILE).read_text())
    (folder / FILE).write_text(yaml.safe_dump(kustomization | patch))
    accounts = [thing for thing in render(folder) if thing.document["kind"] == "ServiceAccount"]
    assert {thing.name for thing in accounts} == {"web", "predictor"}
    assert all(thing.document["imagePullSecrets"] == [{"name": "registry"}] for thing in accounts)


@pytest.mark.parametrize("page", ["deploy-laptop", "deploy-gpu"])
def test_what_kubectl_is_said_to_print_is_what_it_would_print(root: Path, mine: Path, page: str) -> None:
    [applied] = [
        (command, output) for command, output in transcript(root, page) if command.startswith("kubectl apply -k")
    ]
    things = render(mine / applied[0].split()[-1])
    namespace = "unchanged" if page == "deploy-gpu" else "created"  # there it has been made for the Secrets
    assert applied[1] == [f"namespace/shangcai {namespace}", *(f"{printed(thing)} created" for thing in things[1:])]


def test_what_is_waited_for_is_there(root: Path) -> None:
    [output] = [output for command, output in transcript(root, "deploy-laptop") if "inferenceservice,ksvc" in command]
    things = render(root / "deploy" / "laptop")
    models = [thing for thing in things if thing.document["kind"] == "InferenceService"]
    services = [f"service.serving.knative.dev/{thing.name}-predictor" for thing in models]
    services += [printed(thing) for thing in things if thing.kind == "Service.serving.knative.dev"]
    assert output == [f"{what} condition met" for what in (*map(printed, models), *services)]


def test_cluster_up_says_what_the_guide_shows(root: Path) -> None:
    dry = subprocess.run(
        [root / "scripts" / "cluster-up", "--dry-run", "--with", "kind"], capture_output=True, text=True, check=True
    ).stdout
    steps = [line[2:] for line in dry.splitlines() if re.match("# (?!until|in `ingress`)", line)]
    assert "\n".join(["```", *steps, "```"]) in guide(root, "deploy-laptop")


def test_what_is_installed_by_hand_is_what_cluster_up_installs(root: Path, guides: str) -> None:
    """Parts of Eventing stand in a loop."""
    urls = [url for component in (*COMPONENTS, EVENTS) for url in component.urls]
    named = re.findall(r"https://github.com/\S+/releases/download/\S+?\.yaml", guides)
    for url in named:
        assert any(re.fullmatch(re.escape(url).replace(r"\$part", ".*"), known) for known in urls), url
    assert [url for url in urls if url not in named and url not in EVENTS.urls] == []


def test_each_component_is_in_the_table(root: Path) -> None:
    table = guide(root, "deploy-reference")
    folders = [file.parent for folder in FOLDERS for file in (root / folder).rglob(FILE)]
    parts = [name(root, folder) for folder in folders if "components" in folder.parts or "overlays" in folder.parts]
    assert [part for part in parts if f"`{part}`" not in table] == []
    combinations = [name(root, folder) for folder in all_of(root) if folder.parent == root / "deploy"]
    assert [folder for folder in combinations if f"| `{folder}` |" not in table] == []


def test_the_secrets_that_the_reader_makes_are_named(guides: str) -> None:
    assert [secret for secret in SECRETS if f"a Secret `{secret}`" not in guides] == []
