"""The official client in front of the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from contract.problems import invalid_field


@pytest.fixture
def client(web: Callable[..., httpx.AsyncClient]) -> Callable[..., openai.AsyncOpenAI]:
    """A client that does not try again by itself; arguments are those of the application."""

    def make(*arguments: Any, **settings: Any) -> openai.AsyncOpenAI:
        served: Any = web(*arguments, **settings)  # the client's types want httpx2
        return openai.AsyncOpenAI(base_url="http://web.test/v1", api_key="none", http_client=served, max_retries=0)

    return make


@pytest.fixture
def refused() -> Callable[[str], Callable[[httpx.Request], httpx.Response]]:
    """A predictor that refuses this field."""
    return lambda field: lambda _: httpx.Response(400, json=invalid_field(field, "is too long").document)
