"""A Helm chart of what kubectl renders: a template for each combination; only images and namespace vary."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.release.combinations import combinations, documents, render
from scripts.release.images import Image, substitute

PLACEHOLDER = "namespace-of-the-release"
"""A name that occurs nowhere else: kustomize writes it wherever the namespace goes."""


def write(folder: Path, images: dict[str, Image], version: str, source: str) -> None:
    """The chart's files, below a new folder."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(
        "apiVersion: v2\n"
        "name: shangcai\n"
        "description: Generation behind POST /generate on KServe, with or without Knative\n"
        "type: application\n"
        f"version: {version}\n"
        f'appVersion: "{version}"\n' + (f"sources:\n  - {source}\n" if source else "")
    )
    (folder / "values.yaml").write_text(values(images))
    (folder / "values.schema.json").write_text(json.dumps(schema(images), indent=2) + "\n")
    for combination in combinations():
        (folder / "templates" / f"{combination}.yaml").write_text(template(combination))


def values(images: dict[str, Image]) -> str:
    lines = [
        f"# One of the folders in deploy/: {', '.join(combinations())}",
        "combination: laptop",
        "# Where the images are; a mirror has them under the same names.",
        f"registry: {images['web'].registry}",
        "# The digest decides. Leave it empty to go by the tag.",
        "images:",
    ]
    for key, image in images.items():
        lines += [f"  {key}:", f'    tag: "{image.tag}"', f'    digest: "{image.digest}"']
    return "\n".join(lines) + "\n"


def schema(images: dict[str, Image]) -> dict[str, object]:
    """What Helm refuses: a combination that is not there, or an unknown value."""
    image = {
        "type": "object",
        "properties": {"tag": {"type": "string"}, "digest": {"type": "string"}},
        "additionalProperties": False,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "combination": {"enum": combinations()},
            "registry": {"type": "string"},
            "images": {"type": "object", "properties": dict.fromkeys(images, image), "additionalProperties": False},
            "global": {"type": "object"},
        },
        "additionalProperties": False,
    }


def template(combination: str) -> str:
    """One combination, without its Namespace: that is made before the chart (`helm install --create-namespace`)."""
    parts = [
        part
        for part in documents(render(combination, PLACEHOLDER))
        if not part.startswith("apiVersion: v1\nkind: Namespace\n")
    ]
    text = "\n---\n".join(parts).replace("{{", '{{ "{{" }}')
    text = substitute(text, image_expression).replace(PLACEHOLDER, "{{ .Release.Namespace }}")
    return f'{{{{- if eq .Values.combination "{combination}" }}}}\n{text}\n{{{{- end }}}}\n'


def image_expression(key: str) -> str:
    name = "web" if key == "web" else "predictor"
    image = f".Values.images.{key}"
    return (
        f"{{{{ .Values.registry }}}}/{name}:{{{{ {image}.tag }}}}{{{{ with {image}.digest }}}}@{{{{ . }}}}{{{{ end }}}}"
    )
