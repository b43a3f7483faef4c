"""The credentials that Kubernetes mounts into a pod for its API server. They are read each time: they are replaced
before they expire."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpx2

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds them."""

_NAMES = ("kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def api_server() -> str | None:
    """The address of the pod's own API server; None outside of a pod."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not host:
        return None
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def is_api_server(address: str) -> bool:
    """Whether this is an address of the pod's own API server: nobody else gets its token."""
    url = httpx2.URL(address)
    origins = {(name, 443) for name in _NAMES}
    service = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    origins.add((service.lower(), int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))))
    return url.scheme == "https" and (url.host, url.port or 443) in origins


def credentials() -> dict[str, str]:
    """The header by which the API server knows the pod; none where no token is mounted."""
    token = ACCOUNT / "token"
    return {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}


def trusted_authorities() -> ssl.SSLContext:
    """The public authorities and the cluster's own."""
    context = httpx2.create_ssl_context()
    authority = ACCOUNT / "ca.crt"
    if authority.exists():
        context.load_verify_locations(cafile=str(authority))
    return context
