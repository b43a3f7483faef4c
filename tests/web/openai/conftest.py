"""The official client in front of the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from contract.openai.error_codes import CONTEXT_LENGTH
from contract.problems import FieldError, field_problem


@pytest.fixture
def client(web: Callable[..., httpx2.AsyncClient]) -> Callable[..., openai.AsyncOpenAI]:
    """A client that does not try again by itself; arguments are those of the application."""

    def make(*arguments: Any, **settings: Any) -> openai.AsyncOpenAI:
        served = web(*arguments, **settings)
        return openai.AsyncOpenAI(base_url="http://web.test/v1", api_key="none", http_client=served, max_retries=0)

    return make


@pytest.fixture
def refused() -> Callable[[str], Callable[[httpx2.Request], httpx2.Response]]:
    """A predictor that finds this field longer than the context."""

    def refuse(field: str) -> Callable[[httpx2.Request], httpx2.Response]:
        problem = field_problem([FieldError(field=field, detail="is too long", code=CONTEXT_LENGTH)])
        return lambda _: httpx2.Response(400, json=problem.document)

    return refuse
