"""Which model is to do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from contract import PICTURE_FIELDS, TEXT_FIELDS, FieldError, GenerationRequest, ProblemError, invalid_field, problems
from contract.problems import field_problem
from web.accept import prefers_picture

if TYPE_CHECKING:  # see web.upstream
    from collections.abc import Mapping

    from web.settings import ServedModel

_MAKES = {"text": "writes texts", "image": "makes pictures"}
_FOREIGN_FIELDS = {"text": PICTURE_FIELDS, "image": TEXT_FIELDS}


def chosen_model(models: Mapping[str, ServedModel], order: GenerationRequest, headers: Headers) -> str:
    """The name of the model that the order means; a problem when it contradicts itself or there is none."""
    name = _first(models, order, headers) if order.model is None else order.model
    if name not in models:
        raise ProblemError(problems.UNKNOWN_MODEL, f"The models served here are: {', '.join(models)}.")
    kind = models[name].kind
    if order.kind not in (None, kind):
        raise invalid_field("kind", f"must be {kind} or left out: the model {name} {_MAKES[kind]}")
    given = order.model_dump(exclude_none=True, include=set(_FOREIGN_FIELDS[kind]))
    if given:
        detail = f"the model {name} {_MAKES[kind]} and does not take this"
        raise field_problem([FieldError(field=field, detail=detail) for field in given])
    return name


def _first(models: Mapping[str, ServedModel], order: GenerationRequest, headers: Headers) -> str:
    """Of the kind that is asked for. Accept only prefers: without such a model it still may take what another makes."""
    kind = order.kind or ("image" if prefers_picture(headers) else None)
    fitting = [name for name, model in models.items() if kind in (None, model.kind)]
    if not fitting and order.kind:
        served = " or ".join(dict.fromkeys(model.kind for model in models.values()))
        raise invalid_field("kind", f"must be {served}: no model served here {_MAKES[order.kind]}")
    return next(iter(fitting or models))
