"""The files that the images' Python packages consist of."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("contract", "wire", "predictor", "web")


def sources() -> set[Path]:
    """Modules and data files, relative to the root."""
    files = {file.relative_to(ROOT) for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()}
    return {file for file in files if "__pycache__" not in file.parts and not file.name.endswith("Dockerfile")}
