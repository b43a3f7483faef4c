"""scripts/make-release: the manifests with digests, and a chart that is the same manifests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.release.combinations import combinations, render
from tests.support.processes import ROOT

REGISTRY = "registry.example.com/me"
DIGESTS = {"web:7": "1", "predictor:7": "2", "predictor:7-cpu": "3"}
LINES = [f"{REGISTRY}/{name}@sha256:{digit * 64}" for name, digit in DIGESTS.items()]
WEB, CUDA, CPU = LINES


def command(folder: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    (folder / "digests").write_text("\n".join(lines))
    arguments = [str(folder / "digests"), "--out", str(folder / "out"), "--source", "https://git.example.com/it"]
    return subprocess.run(
        [sys.executable, "-m", "scripts.release", *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    answer = command(folder, LINES)
    assert answer.returncode == 0, answer.stderr
    return folder / "out"


def objects(text: str) -> list[dict[str, Any]]:
    """All but the Namespace, which a chart leaves to its installer."""
    return [thing for thing in yaml.safe_load_all(text) if thing and thing["kind"] != "Namespace"]


def with_images(text: str, web: str, predictor: str) -> str:
    """What kubectl renders, with other images: what a reader would do by hand."""
    text = re.sub(r"image: \S+/shangcai/web:\S+", f"image: {web}", text)
    return re.sub(r"image: \S+/shangcai/predictor:\S+", f"image: {predictor}", text)


def predictor(combination: str) -> str:
    return CUDA if combination in ("gpu", "events") else CPU


@pytest.mark.parametrize("combination", combinations())
def test_the_manifests_are_those_of_the_folder_with_the_digests_of_what_was_pushed(
    combination: str, release: Path
) -> None:
    expected = with_images(render(combination), WEB, predictor(combination))
    assert list(yaml.safe_load_all((release / f"{combination}.yaml").read_text())) == list(yaml.safe_load_all(expected))
    assert "registry.example.com/shangcai" not in expected
    assert "dev.local" not in expected


def test_the_release_names_what_was_pushed(release: Path) -> None:
    assert (release / "images.txt").read_text().splitlines() == LINES


def substituted(chart: Path, combination: str, namespace: str, values: dict[str, Any]) -> str:
    """What Helm makes of the few expressions that the templates use; an unknown one stays, and is no YAML of ours."""
    text = "---\n".join(path.read_text() for path in sorted((chart / "templates").iterdir()))
    chosen = rf'\{{\{{- if eq .Values.combination "{combination}" \}}\}}\n(.*?)\n\{{\{{- end \}}\}}\n'
    (body,) = re.findall(chosen, text, re.DOTALL)
    found = (
        str(body).replace("{{ .Release.Namespace }}", namespace).replace("{{ .Values.registry }}", values["registry"])
    )
    for name, image in values["images"].items():
        path = f".Values.images.{name}"
        found = found.replace(f"{{{{ {path}.tag }}}}", image["tag"])
        digest = f"@{image['digest']}" if image["digest"] else ""
        found = found.replace(f"{{{{ with {path}.digest }}}}@{{{{ . }}}}{{{{ end }}}}", digest)
    assert "{{" not in found.replace('{{ "{{" }}', "")
    return found.replace('{{ "{{" }}', "{{")


def helm(chart: Path, combination: str, namespace: str, *arguments: str) -> str:
    command = ["helm", "template", "it", str(chart), "--namespace", namespace, "--set", f"combination={combination}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout


def key(thing: dict[str, Any]) -> tuple[str, str]:
    return thing["kind"], thing["metadata"]["name"]


@pytest.mark.parametrize("namespace", ["shangcai", "elsewhere"])
@pytest.mark.parametrize("combination", combinations())
def test_the_chart_is_what_kubectl_renders(combination: str, namespace: str, release: Path) -> None:
    """By substitution; and by Helm itself, where it is installed."""
    chart = release / "chart" / "shangcai"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    rendered = render(combination, namespace)
    assert (namespace == "shangcai") == ("namespace: shangcai\n" in rendered)
    expected = objects(with_images(rendered, WEB, predictor(combination)))
    assert objects(substituted(chart, combination, namespace, values)) == expected
    if shutil.which("helm"):  # which has an order of its own
        assert sorted(objects(helm(chart, combination, namespace)), key=key) == sorted(expected, key=key)


@pytest.mark.parametrize("combination", combinations())
def test_the_chart_makes_the_secrets_that_its_page_names(combination: str) -> None:
    page = " ".join((ROOT / "docs" / "releases.md").read_text().split())
    secrets = [thing for thing in objects(render(combination, "shangcai")) if thing["kind"] == "Secret"]
    assert [thing["metadata"]["name"] for thing in secrets] == ["store"]
    assert "makes no namespace and no Secret but `store`, which has no password" in page
    assert "@" not in secrets[0]["stringData"]["url"]


def test_an_image_goes_by_its_tag_where_it_has_no_digest(release: Path) -> None:
    chart = release / "chart" / "shangcai"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    values["registry"] = "mirror.example.com"
    for image in values["images"].values():
        image["digest"] = ""
    expected = with_images(render("gpu"), "mirror.example.com/web:7", "mirror.example.com/predictor:7")
    assert objects(substituted(chart, "gpu", "shangcai", values)) == objects(expected)


def test_the_chart_says_what_it_is_and_refuses_unknown_values(release: Path) -> None:
    chart = release / "chart" / "shangcai"
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert (about["apiVersion"], about["name"], about["version"]) == ("v2", "shangcai", about["appVersion"])
    assert about["sources"] == ["https://git.example.com/it"]
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    assert values["combination"] in schema["properties"]["combination"]["enum"]
    assert set(values) | {"global"} == set(schema["properties"])
    assert list(values["images"]) == list(schema["properties"]["images"]["properties"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([WEB, CUDA], "no image of predictor-cpu"),
        ([WEB, WEB, CUDA, CPU], f"{WEB}: one image each is needed of web, predictor, predictor-cpu"),
        ([f"{REGISTRY}/web:7", CUDA, CPU], f"'{REGISTRY}/web:7' is not NAME:TAG@DIGEST"),
        ([WEB.replace("/me/", "/you/"), CUDA, CPU], "the images are in several registries"),
    ],
)
def test_images_that_do_not_make_a_release_are_one_clear_line(lines: list[str], said: str, tmp_path: Path) -> None:
    answer = command(tmp_path, lines)
    assert answer.stderr == f"scripts/make-release: {said}\n"
    assert answer.returncode == 1
    assert not (tmp_path / "out").exists()
