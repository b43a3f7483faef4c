"""The descriptions of the served models: what the deployment states, over what the models have said of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from contract import RequestLimits
from contract.models.description import NOT_DESCRIBED, ModelDescription, ModelLimits

if TYPE_CHECKING:  # see web.rest.upstream
    from web.setting_values import ServedModel


class Descriptions:
    """By the models' names, in the order in which they are served."""

    def __init__(self, models: Mapping[str, ServedModel], limits: RequestLimits) -> None:
        self._stated = {name: model.description or NOT_DESCRIBED for name, model in models.items()}
        self._learned: dict[str, ModelDescription] = {}
        self._own = {
            name: ModelLimits(
                prompt_chars=limits.prompt_chars, max_tokens=limits.max_tokens if model.kind == "text" else None
            )
            for name, model in models.items()
        }
        self._known = {name: self._merged(name) for name in models}

    def of(self, model: str) -> ModelDescription:
        """With this server's own limits, which are the tighter ones where a model has such, too."""
        return self._known[model]

    def learn(self, model: str, description: ModelDescription) -> None:
        """What a model says of itself."""
        if self._learned.get(model) != description:
            self._learned[model] = description
            self._known[model] = self._merged(model)

    def _merged(self, model: str) -> ModelDescription:
        known = self._stated[model].over(self._learned.get(model, NOT_DESCRIBED))
        return ModelDescription(limits=self._own[model]).over(known)
