"""Where a request keeps the name of its caller."""

from __future__ import annotations

import re

from starlette.types import Scope

from contract.callers import DEFAULT_CALLER, EVENTS_CALLER

__all__ = ["DEFAULT_CALLER", "EVENTS_CALLER", "caller_of"]

NAME_TEXT = f"1 to 128 of A-Z a-z 0-9 . _ @ : -, and neither {DEFAULT_CALLER} nor {EVENTS_CALLER}"

_NAME = re.compile(r"[A-Za-z0-9._@:-]{1,128}")


def is_caller_name(name: object) -> bool:
    """Whether somebody may have this name: see NAME_TEXT."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and name not in (DEFAULT_CALLER, EVENTS_CALLER)


def caller_of(scope: Scope) -> str:
    """The caller of a request, as the authentication has found. There is none on the paths that are open to all."""
    caller: str = scope["state"]["caller"]
    return caller
