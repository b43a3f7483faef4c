"""The part of the OpenAPI description about `GET /models`, `GET /status` and `POST /warm`."""

from __future__ import annotations

from typing import Any

from contract import ModelStatus, Statuses, problems
from contract.models.description import DescribedModel, DescribedModels, FieldDefaults, ModelLimits, SizeLimits
from web.http.accept import JSON
from web.openapi.problems import refusals
from web.openapi.schemas import ref

_READY = ModelStatus(name="poet", kind="text", state="ready", since="2026-01-31T08:00:00.000Z", expected_seconds=6.1)
_WAKING = ModelStatus(
    name="poet",
    kind="text",
    state="waking",
    since="2026-01-31T08:00:00.000Z",
    phase="loading the weights",
    seconds=4.1,
    expected_seconds=6.1,
)
_STATES = (
    "`asleep`, `waking`, `ready`, `pending` while it was asked for something and has not said a word, or `unknown` "
    "while nothing has been seen of it. They come from what is seen of it here: its answers, what it says of its "
    "loading, how long it is silent, and where that is set up its endpoints. Ignore states that you do not know."
)


def status_operation() -> dict[str, Any]:
    document = Statuses(models=[_WAKING])
    return {
        "operationId": "status",
        "tags": ["models"],
        "summary": "Whether the models are awake",
        "description": f"The state of each: {_STATES} Asking wakes nobody.",
        "responses": {
            "200": _answer("The models, in the order in which they are served.", "Statuses", document),
            **refusals({problems.UNAUTHORIZED, problems.UNAVAILABLE}),
        },
    }


def models_operation() -> dict[str, Any]:
    painter = DescribedModel(
        name="painter",
        kind="image",
        summary={"en": "Small pictures of things, in the manner of emoji."},
        languages=["zh", "en"],
        limits=ModelLimits(steps=200, size=SizeLimits(multiple=8, pixels=8192)),
        defaults=FieldDefaults(size="64x64", steps=12, guidance=2.0),
    )
    document = DescribedModels(models=[painter], default_model="painter")
    return {
        "operationId": "models",
        "tags": ["models"],
        "summary": "Which models are served, and what is known of them",
        "description": "What its deployment states of each, and what it has said of itself when it was last awake. "
        "What is not known is absent. A request that is known to be beyond the limits is refused before the model is "
        "woken for it. Asking wakes nobody.",
        "responses": {
            "200": _answer("The models, in the order in which they are served.", "DescribedModels", document),
            **refusals({problems.UNAUTHORIZED, problems.UNAVAILABLE}),
        },
    }


def warm_operation() -> dict[str, Any]:
    waking = _answer(
        "It is going to be ready, or has not said a word yet; GET /status tells how far it is.", "ModelStatus", _WAKING
    )
    waking["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return {
        "operationId": "warm",
        "tags": ["models"],
        "summary": "Wake a model, and generate nothing",
        "description": "For somebody who is about to ask for something. However many ask, a model is woken once. "
        "Without a body it is the default model. Pages of other sites may not do that.",
        "requestBody": {
            "required": False,
            "content": {JSON: {"schema": ref("ModelChoice"), "examples": {"picture": {"value": {"kind": "image"}}}}},
        },
        "responses": {
            "200": _answer("It is ready.", "ModelStatus", _READY),
            "202": waking,
            **refusals(
                {
                    problems.UNAUTHORIZED,
                    problems.FORBIDDEN,
                    problems.MALFORMED_BODY,
                    problems.INVALID_FIELD,
                    problems.UNKNOWN_MODEL,
                    problems.BODY_TIMEOUT,
                    problems.BODY_TOO_LARGE,
                    problems.UNSUPPORTED_MEDIA_TYPE,
                    problems.INTERNAL,
                    problems.NOT_IMPLEMENTED,
                    problems.BAD_UPSTREAM,
                    problems.UNAVAILABLE,
                }
            ),
        },
    }


def _answer(description: str, model: str, example: ModelStatus | Statuses | DescribedModels) -> dict[str, Any]:
    value = example.model_dump(mode="json", exclude_none=True)
    return {
        "description": description,
        "content": {JSON: {"schema": ref(model), "examples": {"poet": {"value": value}}}},
    }
