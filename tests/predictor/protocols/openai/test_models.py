"""OpenAI's list of models, and what the model says of itself in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract.models.description import FieldDefaults, ModelDescription, ModelLimits
from predictor.engine.engine_settings import EngineSettings
from predictor.loading.description_file import read_description
from scripts.project import ROOT
from tests.support.scripted_engine import ScriptedEngine


async def test_a_card_says_what_the_engine_and_its_deployment_say(
    server: Any, client: httpx2.AsyncClient, engine: ScriptedEngine
) -> None:
    engine.told = ModelDescription(limits=ModelLimits(context_tokens=256), defaults=FieldDefaults(temperature=0.7))
    server.model.stated = ModelDescription(languages=["zh"], defaults=FieldDefaults(temperature=0.5))
    card = (await client.get("/openai/v1/models/poet")).json()
    assert card.pop("created") > 0
    assert card == {
        "id": "poet",
        "object": "model",
        "owned_by": "shangcai",
        "kind": "text",
        "languages": ["zh"],
        "limits": {"context_tokens": 256},
        "defaults": {"temperature": 0.5},
    }
    [listed] = (await client.get("/openai/v1/models")).json()["data"]
    assert listed["limits"] == card["limits"]


async def test_other_names_are_unknown(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/openai/v1/models/novelist")).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poet", "painter"])
def test_the_embedded_models_are_what_their_files_say(name: str) -> None:
    """So that it is known before they have been awake."""
    from predictor.pictures.diffusers_engine import DiffusersEngine
    from predictor.text.transformers_engine import TransformersEngine

    folder: Path = ROOT / "models" / name
    settings = EngineSettings(model=str(folder), device="cpu")
    engine = (TransformersEngine if name == "poet" else DiffusersEngine)(settings)
    engine.load(lambda phase: None)
    try:
        awake, stated = engine.description, read_description(folder)
        assert (stated.limits, stated.defaults) == (awake.limits, awake.defaults)
        assert (stated.refuses or []) == (awake.refuses or [])
        engine.sleep(2)
        assert engine.description == awake
    finally:
        engine.close()
