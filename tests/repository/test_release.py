"""What a tag runs, with stubs of docker, Helm and GitHub's client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

from scripts.project import version
from scripts.release.combinations import combinations, render

ROOT = Path(__file__).parents[2]
NEEDED = (".ci", "deploy", "knative", "kserve", "scripts", "pyproject.toml")
TAG = f"v{version()}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a release reads, since it writes beside it."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (tmp_path / "bin").mkdir()
    for name in ("docker", "helm", "gh"):
        stub = tmp_path / "bin" / name
        stub.write_text(f"""#!/bin/bash
            [ "$1" != info ] && [ "$2" != version ] || exit 0
            printf '%s|' {name} "$@" >>{tmp_path}/calls; echo >>{tmp_path}/calls
            [ {name} = docker ] || exit 0
            while [ "$1" != --metadata-file ]; do shift; done
            echo '{{"containerimage.digest": "sha256:{"0" * 64}"}}' >"$2"
        """)
        stub.chmod(0o755)
    return folder


def run(checkout: Path, script: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """What it said, and the arguments of each stub that it called."""
    kubectl = sysconfig.get_path("scripts")
    answer = subprocess.run(
        [checkout / ".ci" / script],
        env={
            "PATH": f"{checkout.parent / 'bin'}:{kubectl}:{os.environ['PATH']}",
            "GITHUB_REPOSITORY": "Me/It",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REF_NAME": TAG,
            **environment,
        },
        capture_output=True,
        text=True,
    )
    calls = checkout.parent / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return answer, [line.removesuffix("|").split("|") for line in lines]


def test_a_tag_that_is_not_the_version_publishes_nothing(checkout: Path) -> None:
    assert run(checkout, "check-tag")[0].returncode == 0
    answer, _ = run(checkout, "check-tag", GITHUB_REF_NAME="v99.0.0")
    assert answer.stderr == f"the tag is v99.0.0, and the version in pyproject.toml is {version()}\n"
    assert answer.returncode == 1


def test_an_image_is_pushed_to_the_repositorys_own_registry_with_what_is_attested(checkout: Path) -> None:
    answer, (build,) = run(
        checkout,
        "release-image",
        ARGUMENTS="predictor --platform linux/amd64",
        EXTRAS="predictor gpu",
        SUFFIX="",
        DIGESTS="digests-predictor-cuda.txt",
    )
    assert answer.returncode == 0, answer.stderr
    assert build[:5] == ["docker", "buildx", "build", "--tag", f"ghcr.io/me/it/predictor:{version()}"]
    assert {"EXTRAS=predictor gpu", "SOURCE=https://github.com/Me/It", "linux/amd64"} < set(build)
    assert build[-5:] == ["--sbom=true", "--provenance=mode=max", "--build-arg", "EXTRAS=predictor gpu", "."]
    digests = (checkout / "digests-predictor-cuda.txt").read_text()
    assert digests == f"ghcr.io/me/it/predictor:{version()}@sha256:{'0' * 64}\n"


def test_the_chart_goes_to_the_registry_and_the_manifests_to_the_release(checkout: Path) -> None:
    (checkout / "digests").mkdir()
    for name, tag in (("web", version()), ("predictor", version()), ("predictor", f"{version()}-cpu")):
        line = f"ghcr.io/me/it/{name}:{tag}@sha256:{'0' * 64}\n"
        (checkout / "digests" / f"digests-{name}-{tag}.txt").write_text(line)
    answer, (lint, package, push, release) = run(checkout, "release")
    assert answer.returncode == 0, answer.stderr
    assert lint == ["helm", "lint", "--strict", "dist/chart/shangcai"]
    assert package == ["helm", "package", "dist/chart/shangcai", "--destination", "dist"]
    assert push[:2] + push[-1:] == ["helm", "push", "oci://ghcr.io/me/it/charts"]
    assert release[:4] == ["gh", "release", "create", TAG]
    assert {"dist/laptop.yaml", "dist/events.yaml", "dist/images.txt"} < set(release)


def test_the_application_for_argo_cd_ignores_what_is_in_the_manifests() -> None:
    """Its rules name kinds that a combination has; the fields are those of Argo CD's application-crd.yaml."""
    application = yaml.safe_load((ROOT / "docs" / "argocd.yaml").read_text())
    assert (application["apiVersion"], application["kind"]) == ("argoproj.io/v1alpha1", "Application")
    spec = application["spec"]
    assert set(spec) == {"project", "source", "destination", "ignoreDifferences", "syncPolicy"}
    assert spec["source"]["helm"]["valuesObject"]["combination"] in combinations()
    rendered = [thing for name in combinations() for thing in yaml.safe_load_all(render(name))]
    kinds = {(thing["apiVersion"].rpartition("/")[0], thing["kind"]) for thing in rendered}
    assert {(rule["group"], rule["kind"]) for rule in spec["ignoreDifferences"]} <= kinds
    assert all(set(rule) == {"group", "kind", "jsonPointers"} for rule in spec["ignoreDifferences"])
