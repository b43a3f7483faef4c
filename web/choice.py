"""Which model is to do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from contract import GenerationRequest, ProblemError, invalid_field, problems
from contract.request import MAKES, check_fits
from web.accept import prefers_picture

if TYPE_CHECKING:  # see web.upstream
    from collections.abc import Mapping

    from web.settings import ServedModel


def chosen_model(models: Mapping[str, ServedModel], order: GenerationRequest, headers: Headers) -> str:
    """The name of the model that the order means; a problem when it contradicts itself or there is none."""
    name = _first(models, order, headers) if order.model is None else order.model
    if name not in models:
        raise ProblemError(problems.UNKNOWN_MODEL, f"The models served here are: {', '.join(models)}.")
    check_fits(order, name, models[name].kind)
    return name


def _first(models: Mapping[str, ServedModel], order: GenerationRequest, headers: Headers) -> str:
    """Of the kind that is asked for. Accept only prefers: without such a model it still may take what another makes."""
    kind = order.kind or ("image" if prefers_picture(headers) else None)
    fitting = [name for name, model in models.items() if kind in (None, model.kind)]
    if not fitting and order.kind:
        served = " or ".join(dict.fromkeys(model.kind for model in models.values()))
        raise invalid_field("kind", f"must be {served}: no model served here {MAKES[order.kind]}")
    return next(iter(fitting or models))
