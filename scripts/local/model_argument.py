"""A model as scripts/run is given it: `SOURCE`, or `NAME=SOURCE,option=value…`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from contract import Kind
from predictor.settings import NAME_PATTERN, Settings, default_name
from wire.settings import describe

SET_HERE = {"model", "name", "host", "port", "grpc_port", "quiet_seconds", "idle_seconds", "log_level"}
SET_HERE |= {"wait_for_restore"}
"""What a predictor of scripts/run cannot be told: it is told so already, or would wait and serve nothing."""

OPTIONS = {name.replace("_", "-"): name for name in Settings.model_fields if name not in SET_HERE}
"""The options of a model: the predictor's settings, by the names of their flags."""


@dataclass(frozen=True)
class ModelArgument:
    """One `--model`: its served name, where it comes from, and the settings of its predictor as they were written.

    `kind` is None as long as it is neither given nor found out.
    """

    name: str
    source: str
    kind: Kind | None = None
    revision: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """The settings as environment variables of the predictor."""
        settings = {**self.settings, "kind": self.kind} if self.kind else self.settings
        return {f"PREDICTOR_{name.upper()}": value for name, value in settings.items()}


def parse_model(text: str, name: str | None = None) -> ModelArgument:
    """A model of this `name`, where it is given apart. Raises a ValueError that says what is wrong or allowed."""
    own, source, comma, options = "", text, "", ""
    if not os.path.exists(text):  # a folder may have any name
        source, comma, options = text.partition(",")
        before, equals, after = source.partition("=")
        if equals:
            own, source = before, after
            if not own:
                raise ValueError("there is no name before the =")
    if not source:
        raise ValueError("it is empty; give a folder or a hub id, as SOURCE or NAME=SOURCE")
    if name is not None and own:
        raise ValueError(f"it has a name already, {own}; leave out --name")
    name = own or name or default_name(os.path.abspath(source))
    if not re.fullmatch(NAME_PATTERN, name) or not name:
        raise ValueError(f"{name!r} cannot be part of an address; give NAME=SOURCE, of letters, digits and . _ -")
    settings = dict(_parse_option(option) for option in options.split(",")) if comma else {}
    try:
        chosen = Settings(**{"model": source, "name": name, **settings})  # type: ignore[arg-type]  # it converts them
    except ValidationError as error:
        raise ValueError("; ".join(f"{setting}: {why}" for setting, why in describe(error))) from None
    return ModelArgument(name, source, chosen.kind, chosen.revision, settings)


def _parse_option(option: str) -> tuple[str, str]:
    """The setting and its value."""
    flag, equals, value = option.partition("=")
    setting = OPTIONS.get(flag.strip().replace("_", "-"))
    if not (setting and equals):
        raise ValueError(f"{option!r} is no option=value; options are {', '.join(OPTIONS)}")
    return setting, value.strip()
