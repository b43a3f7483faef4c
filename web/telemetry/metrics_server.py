"""`GET /metrics` on a port of its own: nobody reads it where the clients are."""

from __future__ import annotations

import errno

from prometheus_client import start_http_server


def serve_metrics(host: str, port: int) -> None:
    """Until the process ends, in threads of its own. An OSError whose message is one clear line."""
    try:
        start_http_server(port, host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} on {host}, for metrics, is in use") from None
        raise OSError(f"cannot listen on {host} port {port}, for metrics: {error.strerror or error}") from None
