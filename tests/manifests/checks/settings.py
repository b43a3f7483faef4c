"""Environment variables and flags of our containers, checked with the settings classes that read them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

from pydantic import ValidationError
from pydantic_settings import SettingsError

from contract import ModelChoice
from predictor.settings import Settings as PredictorSettings
from tests.manifests.checks.objects import Object, environment, our_image, restores
from tests.manifests.checks.values import BYTES, DEVICE
from web.settings import Settings as WebSettings

BARE = {"STORE_URL", "ARTIFACTS_URL", "K_SINK"}
PREDICTOR_NAMES = (
    {f"PREDICTOR_{name.upper()}" for name in PredictorSettings.model_fields}
    | BARE
    | {"STORAGE_URI", "NAMESPACE", "SNAPSHOT_THREADS"}
)
WEB_NAMES = {name.upper() for name in WebSettings.model_fields} | {"NAMESPACE"}
MODELS = Path(__file__).parents[3] / "models"
EMBEDDED = {f"/app/models/{folder.name}" for folder in MODELS.iterdir() if any(folder.rglob("*.safetensors"))}
MODEL_URI = re.compile(r"(hf|s3|gs|pvc)://[\w.-]+/[\w./-]+|oci(\+native)?://[\w.-]+(:\d+)?/[a-z\d._/-]+:[\w.-]+")


def check(thing: Object) -> Iterator[str]:
    for container in thing.containers:
        image = our_image(container)
        if image is None:
            continue
        values = environment(container)
        names = WEB_NAMES if image == "web" else PREDICTOR_NAMES
        for name in values.keys() - names:
            yield f"env.{name}: is not read"
        for name, value in values.items():
            if "$(" in value:
                yield f"env.{name}: no earlier variable is in {value!r}"
        for problem in _construct(image, json.dumps(values)):
            yield f"env: {problem}"
        for flag in container.get("args") or []:
            if not re.fullmatch(r"--[a-z-]+=\S+", flag) or flag[2:].partition("=")[0].replace("-", "_") not in (
                PredictorSettings.model_fields
            ):
                yield f"args: {flag} is no flag"
        limits = container.get("resources", {}).get("limits", {})
        if any(DEVICE.fullmatch(name) for name in limits) != (values.get("PREDICTOR_DEVICE") == "cuda"):
            yield "env.PREDICTOR_DEVICE: must be cuda on a GPU, or the CPU may serve, and cannot be elsewhere"
        if "STORAGE_URI" in values and not MODEL_URI.fullmatch(values["STORAGE_URI"]):
            yield f"env.STORAGE_URI: {values['STORAGE_URI']!r} is no URI of a model"
        if restores(container) and not container["image"].endswith(f"-{Path(values['PREDICTOR_MODEL']).name}"):
            yield "env.PREDICTOR_MODEL: is not the one that the image has a snapshot of"
        if "PREDICTOR_MODEL" in values and values["PREDICTOR_MODEL"] not in EMBEDDED:
            yield "env.PREDICTOR_MODEL: is not in the image"
        if not BYTES.fullmatch(values.get("PREDICTOR_MEMORY", "1Gi")):
            yield f"env.PREDICTOR_MEMORY: {values['PREDICTOR_MEMORY']!r} is no quantity"
    if thing.kind == "PingSource.sources.knative.dev":
        try:
            ModelChoice.model_validate_json(thing.spec["data"])
        except ValidationError as error:
            yield f"spec.data: {error.errors()[0]['msg']}"
    if thing.kind == "ServingRuntime.serving.kserve.io" and "PREDICTOR_NAME" in environment(thing.containers[0]):
        yield "env.PREDICTOR_NAME: the served name is the InferenceService's"


@cache
def _construct(image: str, values: str) -> tuple[str, ...]:
    """The errors of the settings class for this environment."""
    variables = json.loads(values)
    settings = PredictorSettings if image == "predictor" else WebSettings
    with patch.dict(os.environ, variables, clear=True):
        try:
            settings()
        except ValidationError as error:
            return tuple(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        except SettingsError as error:
            return (str(error),)
    return ()
