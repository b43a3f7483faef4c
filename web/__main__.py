"""`python -m web`: settings, socket, server."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from functools import partial

import uvicorn

from web.api.health import PATHS
from web.app import create_app
from web.callers.key_file import KeyFileError
from web.jobs.background_loops import STALLED_SECONDS, BackgroundLoops
from web.openai.problems import problem_responses
from web.settings import Settings
from web.telemetry.metrics_server import serve_metrics
from wire.connections.answer_sender import AnswerBudget
from wire.connections.connection_limit import ConnectionLimit
from wire.connections.http_protocol import HttpProtocol
from wire.drain import LAST_SECONDS, Drain
from wire.listener import listen
from wire.settings import read_settings
from wire.telemetry.logs import set_up_logging
from wire.telemetry.tracing import start_tracing, stop_tracing

log = logging.getLogger("web")


def main() -> None:
    # uvicorn finishes its work and then raises the signal again, which would make the exit status -15. To stop when
    # asked to is a success, hence 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    settings = read_settings(Settings)
    set_up_logging(settings.log_level, settings.log_format)
    if settings.store_url is not None:
        _check_schema(settings.store_url.get_secret_value())
    start_tracing("shangcai-web")
    try:
        server = _Server(settings)
        listener = listen(settings.host, settings.port)
        if settings.open_metrics_port is not None:
            serve_metrics(settings.host, settings.open_metrics_port)
    except (KeyFileError, OSError) as error:
        print(f"web: {error}", file=sys.stderr)
        sys.exit(1)
    host, port = listener.getsockname()[:2]
    models = ", ".join(
        f"{name} at {model.url or settings.k_sink or 'no address'}" for name, model in settings.models.items()
    )
    log.info("listening on %s port %d, serving %s", host, port, models)
    if settings.open_metrics_port is not None:
        log.info("metrics are on port %d", settings.open_metrics_port)
    if settings.sink_missing:
        log.warning("not ready: requests go as events, and K_SINK, their address, is not set")
    if settings.events_unproven:
        log.warning("events are open: whoever reaches POST /events can end a job; set PREDICTOR_TOKEN, or an audience")
    if settings.store_url is None:
        log.info("jobs are kept in memory: run one replica only, or set store_url")
    gc.freeze()  # modules live as long as the process: no collection need search them
    server.run(sockets=[listener])
    stop_tracing()
    if server.failed:
        sys.exit(1)


def _check_schema(url: str) -> None:
    from web.jobs.stores.redis_connection import UnknownSchema, check_schema  # only several replicas need it

    try:
        asyncio.run(check_schema(url))
    except UnknownSchema as error:
        print(f"web: {error}", file=sys.stderr)
        sys.exit(1)


class _Server(uvicorn.Server):
    """At the end of its grace period it answers open requests with a problem; uvicorn itself would with a bare 500."""

    def __init__(self, settings: Settings) -> None:
        self.failed = False
        self._drain = Drain()
        self._finish_seconds = max(settings.grace_seconds - LAST_SECONDS, 0)
        super().__init__(
            uvicorn.Config(
                create_app(settings, drain=self._drain, background=self._background(settings)),
                http=partial(  # type: ignore[arg-type]  # uvicorn calls it like a class
                    HttpProtocol,
                    respond=problem_responses(settings.root_path),
                    limit=ConnectionLimit(settings.max_clients, free_paths=PATHS),
                    budget=AnswerBudget(
                        settings.picture_bytes / 2, settings.send_seconds, settings.send_bytes_per_second
                    ),
                ),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # uvicorn's believes whatever comes from 127.0.0.1; trusted_hops says whom we do
                root_path=settings.root_path,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.grace_seconds,
            )
        )

    def _background(self, settings: Settings) -> BackgroundLoops:
        return BackgroundLoops(self._give_up, max(STALLED_SECONDS, 4 * settings.store_patience_seconds))

    def _give_up(self) -> None:
        """Stop as after SIGTERM, but as a failure."""
        self.failed = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain.begin()
        asyncio.get_running_loop().call_later(self._finish_seconds, self._drain.end)
        await super().shutdown(sockets)


if __name__ == "__main__":
    main()
