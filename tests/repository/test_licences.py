"""What lies in models/ has its licence beside it, and the images and their SBOM say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MODELS = sorted(path.parent for path in (ROOT / "models").glob("*/MODEL_CARD.md"))
IN_IMAGES = [model for model in MODELS if any(model.rglob("*.safetensors"))]
TITLES = {
    "Apache-2.0": "Apache License",
    "MIT": "The MIT License",
    "OFL-1.1": "SIL OPEN FONT LICENSE Version 1.1",
    "BSD-3-Clause": "New BSD License",
}
"""A line of each licence's text."""


def described(model: Path) -> dict[str, Any]:
    """The one package of a model's SPDX document, which BuildKit's scanner reads where it is named *.spdx.json."""
    document = json.loads((model / f"{model.name}.spdx.json").read_text())
    (package,) = document["packages"]
    (relationship,) = document["relationships"]
    assert document["spdxVersion"] == "SPDX-2.3"
    assert relationship == {
        "spdxElementId": document["SPDXID"],
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": package["SPDXID"],
    }
    found: dict[str, Any] = package
    return found


def declared(model: Path) -> list[str]:
    return str(described(model)["licenseDeclared"]).split(" AND ")


def label(image: str) -> str:
    found = re.search(r'image\.licenses="([^"]+)"', (ROOT / image / "Dockerfile").read_text())
    assert found
    return found[1]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_has_the_text_of_each_of_its_licences_beside_it(model: Path) -> None:
    texts = [path.read_text() for path in model.glob("LICENSE*")]
    assert len(texts) == len(declared(model))
    for licence in declared(model):
        assert [text for text in texts if TITLES[licence] in text]
    holders = re.findall(r"Copyright (?:\(c\) )?[\d-]+,? ([\w ]+)", "\n".join(texts))
    assert [holder for holder in holders if holder.strip() not in described(model)["copyrightText"]] == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_models_card_names_its_licence(model: Path) -> None:
    card = yaml.safe_load((model / "MODEL_CARD.md").read_text().split("---\n")[1])
    assert card["license"] == declared(model)[0].lower()


def test_the_labels_of_the_images_name_all_licences_of_what_is_ours_in_them() -> None:
    assert label("web") == "Apache-2.0"
    assert label("predictor").split(" AND ") == [
        "Apache-2.0",
        *dict.fromkeys(licence for model in reversed(IN_IMAGES) for licence in declared(model)),
    ]
