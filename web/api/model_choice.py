"""Which of the served models a request means.

One that names none goes to the first of its kind whose `match` is found in its prompt, or else to the first of its kind
without a `match`, or else to the first of its kind; where it says no kind, it is the first model's.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from contract import GenerationRequest, Kind, ProblemError, invalid_field, problems
from contract.request import MAKES, check_fits, not_of_kind
from web.http.accept import prefers_picture

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.setting_values import ServedModel


def chosen_model(models: Mapping[str, ServedModel], request: GenerationRequest, headers: Headers) -> str:
    """The name of the model; a problem when there is none, or when the request has fields of another kind."""
    # Accept is only a preference: where no model makes pictures, a text may do.
    preferred: Kind | None = "image" if prefers_picture(headers) else None
    if request.model is None and request.kind is None and any(model.kind == preferred for model in models.values()):
        name = named_model(models, None, preferred, _prompt(request))
    else:
        name = named_model(models, request.model, request.kind, _prompt(request))
    check_fits(request, name, models[name].kind)
    return name


def named_model(models: Mapping[str, ServedModel], name: str | None, kind: Kind | None, prompt: str = "") -> str:
    """The model of this name, or else the one that a prompt of this kind goes to; a problem when there is none."""
    if name is None:
        return _unnamed_model(models, kind, prompt)
    if name not in models:
        detail = f"There is no model {name[:64]!r} here; the models served are: {', '.join(models)}."
        raise ProblemError(problems.UNKNOWN_MODEL, detail)
    if kind not in (None, models[name].kind):
        raise not_of_kind(name, models[name].kind)
    return name


def check_kind(models: Mapping[str, ServedModel], name: str | None, kind: Kind) -> None:
    """A problem where a request that says no kind, because its route does, means a model of another one, or none."""
    if name is not None and models[named_model(models, name, None)].kind != kind:
        other = models[name].kind
        raise invalid_field("model", f"must be a model that {MAKES[kind]}, and {name} {MAKES[other]}")
    if all(model.kind != kind for model in models.values()):
        raise invalid_field("model", f"must be one that {MAKES[kind]}: none is served here")


def _unnamed_model(models: Mapping[str, ServedModel], kind: Kind | None, prompt: str) -> str:
    kind = kind or next(iter(models.values())).kind
    fitting = [name for name, model in models.items() if model.kind == kind]
    if not fitting:
        served = " or ".join(dict.fromkeys(model.kind for model in models.values()))
        raise invalid_field("kind", f"must be {served}: no model served here {MAKES[kind]}")
    matching = (name for name in fitting if models[name].matches(prompt))
    unconditional = (name for name in fitting if models[name].match is None)
    return next(chain(matching, unconditional, fitting))


def _prompt(request: GenerationRequest) -> str:
    """What it asks for: of a conversation, the last that its user has said."""
    if request.prompt is not None:
        return request.prompt
    return next((turn.text for turn in reversed(request.messages or ()) if turn.role == "user"), "")
