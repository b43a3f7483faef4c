"""The page's form, as a browser without scripts sends it, or as an address fills it in.

It is checked here: browsers, which stumble over fields that are folded away, are told not to (`novalidate`)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from pydantic import ValidationError
from starlette.datastructures import Headers

from contract import GenerationRequest, ProblemError, RequestLimits, problems
from contract.problems import invalid_fields

MEDIA_TYPE = "application/x-www-form-urlencoded"
OPTIONS = (
    *("seed", "max_tokens", "temperature", "top_p", "stop"),
    *("size", "steps", "guidance", "n", "negative_prompt"),
)
"""The fields that are typed in, beside the prompt."""

MOST_FIELDS = 32
"""Most fields that are read."""

_FRACTIONS = {"temperature", "top_p", "guidance"}
_NUMBERS = {"seed", "max_tokens", "steps", "n", *_FRACTIONS}


def read_form(headers: Headers, body: bytes) -> dict[str, str]:
    """The fields that were filled in; a problem when the body is no form."""
    sent = headers.get("content-type") or "nothing in particular"
    if sent.partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, f"The form came as {sent}; it is taken as {MEDIA_TYPE}.")
    try:
        return _fields(body)
    except ValueError:
        raise ProblemError(problems.MALFORMED_BODY, "The form cannot be read.") from None


def shared_form(query: bytes, limits: RequestLimits) -> dict[str, str]:
    """What an address such as `/?prompt=…&model=…` fills in, each as long as a prompt may be; nothing where it has no
    prompt, or cannot be read."""
    try:
        form = {name: value for name, value in _fields(query).items() if len(value) <= limits.prompt_chars}
    except ValueError:
        return {}
    return form if "prompt" in form else {}


def _fields(encoded: bytes) -> dict[str, str]:
    """The form's fields that are not empty. Raises a ValueError where they cannot be read."""
    fields = parse_qs(encoded.decode("ascii"), max_num_fields=MOST_FIELDS, errors="strict")
    # Browsers send a line break as CRLF; the user has typed one character.
    return {
        name: values[0].replace("\r\n", "\n")
        for name, values in fields.items()
        if name in ("prompt", "model", *OPTIONS)
    }


def form_request(form: dict[str, str], limits: RequestLimits) -> GenerationRequest:
    """The request that the form makes, within `limits`; INVALID_FIELD names what cannot be one. Empty fields are not in
    `form`."""
    fields: dict[str, Any] = {"prompt": "", **form}
    for name in _NUMBERS & fields.keys():
        number = fields[name].strip()
        fields[name] = int(number) if re.fullmatch("[0-9]{1,19}", number) else number
        if name in _FRACTIONS and re.fullmatch(r"[0-9]{0,9}\.[0-9]{1,9}", number):
            fields[name] = float(number)
    try:
        return GenerationRequest.model_validate(fields, context=limits)
    except ValidationError as error:
        raise invalid_fields(error, GenerationRequest) from None
