"""HTTP clients for servers on this machine: no TLS, no proxies."""

from __future__ import annotations

import ssl

import httpx2

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used, because all is plain HTTP. Without it, httpx2 would read all CA certificates for each client."""

TIMEOUT_SECONDS = 600.0


def client(timeout: float = TIMEOUT_SECONDS) -> httpx2.Client:
    return httpx2.Client(timeout=timeout, trust_env=False, verify=NO_TLS)


def async_client(base_url: str = "", timeout: float = TIMEOUT_SECONDS) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=base_url, timeout=timeout, trust_env=False, verify=NO_TLS)


def get(url: str, timeout: float = TIMEOUT_SECONDS) -> httpx2.Response:
    """Raises an httpx2.HTTPError unless the status is a success."""
    with client(timeout) as one:
        return one.get(url).raise_for_status()
