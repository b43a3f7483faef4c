"""What a measurement holds for, as one short name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

from predictor.loading.fingerprint import fingerprint

_MEASURED_CODE = ("cpu", "engine", "pictures", "text")
"""Folders of the predictor whose code is measured."""


def measurement_key(models: Mapping[str, torch.nn.Module], **facts: object) -> str:
    """The same for the same weights, types, kernels, libraries, device, code and `facts`, which are values of JSON.

    A few numbers stand for each tensor, as in the fingerprint: reading all of them takes longer than measuring.
    """
    return fingerprint(models, measured_code=_code_digest(), **facts)


@cache
def _code_digest() -> str:
    """A version does not tell what a checkout has changed."""
    digest = hashlib.sha256()
    for folder in _MEASURED_CODE:
        for file in sorted((Path(__file__).parents[1] / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
