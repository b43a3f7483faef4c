"""The combinations in deploy/, as kubectl renders them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.project import ROOT

MANIFESTS = ("deploy", "knative", "kserve")
NAMESPACE = "shangcai"


class RenderingError(Exception):
    """kubectl is not there, or does not render a folder."""


def combinations() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "deploy").glob("*/kustomization.yaml"))


def render(combination: str, namespace: str = NAMESPACE) -> str:
    """A combination for a namespace, which is changed where docs/deploy-gpu.md has it changed: addresses follow."""
    if namespace == NAMESPACE:
        return _kustomize(ROOT / "deploy" / combination)
    with TemporaryDirectory() as copy:
        for name in MANIFESTS:
            shutil.copytree(ROOT / name, Path(copy) / name)
        for path in Path(copy, "deploy").glob("*/*.yaml"):
            pattern = {"kustomization.yaml": r"^(namespace: )", "namespace.yaml": r"^(  name: )"}.get(path.name)
            if pattern:
                changed = re.sub(rf"{pattern}{NAMESPACE}$", rf"\g<1>{namespace}", path.read_text(), flags=re.MULTILINE)
                path.write_text(changed)
        return _kustomize(Path(copy) / "deploy" / combination)


def documents(rendered: str) -> list[str]:
    return rendered.removesuffix("\n").split("\n---\n")


def _kustomize(folder: Path) -> str:
    try:
        answer = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    except FileNotFoundError:
        raise RenderingError("kubectl is not on the PATH") from None
    if answer.returncode:
        raise RenderingError(f"kubectl does not render {folder}: {answer.stderr.strip()}")
    return answer.stdout
